"""EMPerf: a fixed-rules benchmark of mitigations against emergent misalignment."""

__version__ = "0.1.0"
