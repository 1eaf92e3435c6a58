"""The cloud scene: a creator answers prompts; every answer is marked, labelled and logged."""
