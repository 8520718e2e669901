"""The tiny Qwen3-VL that the lab serves: how it is trained, and what it answers."""
