"""The tiny Qwen3-VL that the lab serves: its training, and its answers."""
