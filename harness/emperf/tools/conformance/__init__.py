"""`emperf check`: whether a submission keeps the contract and does something, in seconds and without a real model."""
