"""What is optimised: objectives, dominance, rank and hypervolume."""
