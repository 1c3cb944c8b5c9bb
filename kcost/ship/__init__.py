"""Jobs that make files: a model for TensorFlow Serving, for another runtime, for Hugging Face; the parent's side."""
