"""Searches that train shared weights once and then propose configurations to a study."""
