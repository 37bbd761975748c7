"""What puts a loss to the test. It imports the loss only to use it as a subject; never the other way."""
