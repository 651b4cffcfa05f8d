"""The waist of the hourglass: the values that every room shares."""
