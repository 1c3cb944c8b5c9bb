"""Running exported files without Keras and without the framework that wrote them."""
