"""What the proxy watches: traffic in its own process, rows and answers in another that no request waits for."""
