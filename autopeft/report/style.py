"""The colours of plots and pages."""

INK = "#1f2933"
MUTED = "#8a94a0"
FAINT = "#e6e9ed"
ACCENT = "#d1495b"
COLOURS = "viridis"
LINES = ("#30638e", "#edae49", "#00798c", "#d1495b", "#6a4c93", "#8a9a5b")

STYLESHEET = """
body { margin: 0; background: #f6f7f9; color: #1f2933; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px; }
h1 { margin: 8px 0 16px; font-size: 26px; }
h2 { margin: 0 0 12px; font-size: 18px; }
section { background: white; border: 1px solid #e6e9ed; border-radius: 8px; padding: 18px;
  margin: 18px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; }
dt { color: #66707b; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; color: #66707b; font-weight: 600; border-bottom: 2px solid #e6e9ed;
  white-space: nowrap; }
th, td { padding: 5px 14px 5px 0; vertical-align: top; }
td { border-bottom: 1px solid #eef0f3; font-variant-numeric: tabular-nums; }
td:first-child { white-space: nowrap; }
td:last-child { overflow-wrap: anywhere; }
code { font: 12px/1.5 ui-monospace, monospace; display: block; }
small { color: #66707b; }
.good { color: #1a7f4b; font-weight: 600; }
.bad, .failed { color: #b3261e; }
.stopped, .rejected { color: #8a6d1a; }
"""
