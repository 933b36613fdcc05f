"""TRL's GRPO trainer with our methods."""
