"""The colours of plots and pages."""

INK = "#1f2933"
MUTED = "#8a94a0"
FAINT = "#e6e9ed"
ACCENT = "#d1495b"
COLOURS = "viridis"
LINES = ("#30638e", "#edae49", "#00798c", "#d1495b", "#6a4c93", "#8a9a5b")
