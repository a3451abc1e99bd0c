/* Curves of the runs: hover, zoom, choose runs. */

const DASHES = { '-': 'solid', '--': 'dash', '-.': 'dashdot', ':': 'dot' };
const STROKES = { '-': '', '--': '7 4', '-.': '7 3 2 3', ':': '2 3' };
const SYMBOLS = ['circle', 'square', 'diamond', 'cross', 'triangle-up', 'x', 'star'];
const PAPER = { ink: '#000000', line: '#cccccc', paper: '#ffffff' };

/** The page's colours, as the style sheet has them now. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    ['ink', 'line', 'paper'].map(
      (name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** In the dark, black is the page's ink and the others are lighter. */
function colourOf(run, colours) {
  if (run.colour === '#000000') return colours.ink;
  if (Number.parseInt(colours.paper.slice(1, 3), 16) > 127) return run.colour;
  const parts = run.colour.match(/[0-9a-f]{2}/gi).map((part) => Number.parseInt(part, 16));
  return `#${parts.map((part) => Math.round(part + 0.35 * (255 - part))
    .toString(16).padStart(2, '0')).join('')}`;
}

function layout(title, unit, colours) {
  const axis = {
    gridcolor: colours.line, linecolor: colours.line, zeroline: false,
    automargin: true,
  };
  return {
    title: { text: title, font: { size: 14 }, x: 0.02, xanchor: 'left' },
    font: { family: 'system-ui, sans-serif', size: 12, color: colours.ink },
    paper_bgcolor: colours.paper, plot_bgcolor: colours.paper,
    margin: { l: 48, r: 12, t: 36, b: 40 },
    xaxis: { ...axis, title: { text: unit, standoff: 6 } },
    yaxis: axis,
    hovermode: 'x unified',
    hoverlabel: {
      bgcolor: colours.paper, bordercolor: colours.line,
      font: { color: colours.ink },
    },
    showlegend: false,
  };
}

/** A run's mean over its seeds, and their range as a band. */
function curveTraces([label, x, mean, low, high], runs, colours) {
  const run = runs[label];
  const colour = colourOf(run, colours);
  const traces = [];
  if (low.some((value, index) => value !== high[index])) {
    const hidden = { mode: 'lines', line: { width: 0 }, hoverinfo: 'skip' };
    traces.push({ x, y: low, name: label, ...hidden },
      { x, y: high, name: label, fill: 'tonexty', fillcolor: `${colour}26`, ...hidden });
  }
  traces.push({
    x, y: mean, name: label, mode: x.length === 1 ? 'markers' : 'lines',
    line: { color: colour, width: 2, dash: DASHES[run.dash] },
    marker: { color: colour, size: 8, symbol: SYMBOLS[run.number % 7] },
    hovertemplate: '%{y:.4g}',
  });
  return traces;
}

/** Average precision class by class: a row a class, a mark a run. */
function classTraces(classes, runs, colours) {
  return Object.entries(classes.values).map(([label, values]) => ({
    x: values, y: classes.names, name: label, mode: 'markers',
    marker: {
      color: colourOf(runs[label], colours), size: 9,
      symbol: SYMBOLS[runs[label].number % 7],
    },
    hovertemplate: '%{x:.1f}',
  }));
}

function classLayout(classes, colours) {
  const made = layout('', classes.unit, colours);
  made.hovermode = 'y unified';
  made.xaxis.rangemode = 'tozero';
  made.yaxis = { ...made.yaxis, autorange: 'reversed', type: 'category' };
  made.margin.t = 8;
  made.showlegend = true;
  made.legend = { orientation: 'h', y: 1.02, yanchor: 'bottom' };
  made.height = 90 + 20 * classes.names.length;
  return made;
}

/** Every plot of the page; each is drawn again when the colours change. */
class Plots {
  constructor(data) {
    this.runs = data.runs;
    this.chosen = new Set(Object.keys(data.runs));
    this.drawn = [];
    const groups = document.getElementById('plots');
    for (const group of new Set(data.curves.map((panel) => panel.group))) {
      const grid = element('div', { class: 'plots' });
      groups.append(element('h3', {}, group), grid);
      for (const panel of data.curves.filter((each) => each.group === group)) {
        this.add(grid, 'plot', panel.title,
          (colours) => panel.lines.flatMap(
            (line) => curveTraces(line, this.runs, colours)),
          (colours) => layout(panel.title, panel.unit, colours));
      }
    }
    const place = document.getElementById('class-plot');
    if (place && data.classes) {
      this.add(place, 'plot', 'Scores class by class',
        (colours) => classTraces(data.classes, this.runs, colours),
        (colours) => classLayout(data.classes, colours));
    }
    this.follow();
  }

  add(parent, kind, title, traces, makeLayout) {
    const place = element('div', { class: kind, role: 'group', 'aria-label': title });
    parent.append(place);
    this.drawn.push({ place, traces, makeLayout });
    this.draw(this.drawn.at(-1), theme());
  }

  draw({ place, traces, makeLayout }, colours) {
    const shown = traces(colours).map(
      (trace) => ({ ...trace, visible: this.chosen.has(trace.name) }));
    const made = makeLayout(colours);
    // What the reader has zoomed to stays.
    const before = place.layout;
    if (before && before.xaxis.autorange === false) {
      made.xaxis.range = before.xaxis.range;
      made.yaxis.range = before.yaxis.range;
    }
    // What comes below must know its height, on paper too.
    if (made.height) place.style.height = `${made.height}px`;
    Plotly.react(place, shown, made, {
      responsive: true, displaylogo: false, displayModeBar: 'hover',
      showSendToCloud: false,
      modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d'],
    });
  }

  drawAll(colours = theme()) {
    this.drawn.forEach((each) => this.draw(each, colours));
  }

  choose(labels) {
    this.chosen = new Set(labels);
    this.drawAll();
  }

  follow() {
    matchMedia('(prefers-color-scheme: dark)')
      .addEventListener('change', () => this.drawAll());
    addEventListener('beforeprint', () => this.drawAll(PAPER));
    addEventListener('afterprint', () => this.drawAll());
  }
}

/** The check boxes that choose the runs of all plots. */
function runChooser(plots, form) {
  const box = element('fieldset', {}, element('legend', {}, 'Runs'));
  for (const [label, run] of Object.entries(plots.runs)) {
    box.append(checkBox('run', label, label, true,
      swatch(colourOf(run, theme()), STROKES[run.dash])));
  }
  form.append(box);
  form.addEventListener('change', () => plots.choose(checkedValues(form, 'run')));
}
