"""The wheels that vLLM's CPU build needs and no index has ready."""
