"""To a file that runs without Keras: converters, why one cannot, and the check of what it says."""
