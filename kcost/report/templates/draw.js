const dark = matchMedia("(prefers-color-scheme: dark)");
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true, minor: {ticks: ""}};
  return {
    ...layout,
    xaxis: {...axis, ...layout.xaxis}, yaxis: {...axis, ...layout.yaxis},
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {color: colour("--text"), family: "system-ui, sans-serif", size: 12},
    margin: {l: 60, r: 12, t: 30, b: 130},
    legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: {size: 11}},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent")},
    hoverlabel: {font: {family: "system-ui, sans-serif"}},
  };
}
async function draw() {
  let drawn = 0;
  for (const [number, figure] of figures.entries()) {
    const plot = document.getElementById(`plot-${number}`);
    // When the window changes its size, Plotly forgets the layout's height and takes the element's.
    plot.style.minHeight = figure.layout.height ? `${figure.layout.height}px` : "";
    await Plotly.react(plot, figure.data, themed(figure.layout), {responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]]});
    drawn += 1;
  }
  document.body.dataset.drawn = drawn;
}
function drawOrTell() { draw().catch((error) => { document.body.dataset.error = String(error); }); }
// Plots are drawn for the window. With a view box the print style can make them as wide as the paper.
const drawings = () => document.querySelectorAll(".plot .main-svg");
addEventListener("beforeprint", () => drawings().forEach((drawing) => {
  drawing.setAttribute("viewBox", `0 0 ${drawing.getAttribute("width")} ${drawing.getAttribute("height")}`);
}));
addEventListener("afterprint", () => drawings().forEach((drawing) => drawing.removeAttribute("viewBox")));
dark.addEventListener("change", drawOrTell);
drawOrTell();
