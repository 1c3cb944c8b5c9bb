"""The version of kcost, on the lowest floor: files name the version that wrote them."""

__version__ = "0.1.0"
