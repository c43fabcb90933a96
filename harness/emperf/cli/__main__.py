from emperf.cli import main

main()
