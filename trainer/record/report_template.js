'use strict';
// Draws the page from the JSON in #data. Text from the user's files only ever becomes a text node.
(function () {
  const {runs, line_styles: lineStyles, layer_charts: layerCharts} = JSON.parse(document.getElementById('data').textContent);
  const several = runs.length > 1;
  const byId = (id) => document.getElementById(id);
  const leaveOut = (id) => { byId(id).hidden = true; };  // it is looked for again where the theme changes
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const styleOf = (line) => ({color: lineStyles[line][dark.matches ? 'dark' : 'light'], dash: lineStyles[line].dash});

  function swatch({color, dash}) {
    const node = element('span', {class: dash.length ? 'swatch dashed' : 'swatch'});
    if (!dash.length) node.style.background = color;
    let end = 0;  // a dashed line's is a piece of it
    const pieces = dash.map((length, i) => (i % 2 ? 'transparent ' : color + ' ') + end + 'px ' + (end += length) + 'px');
    if (dash.length) node.style.background = 'repeating-linear-gradient(90deg, ' + pieces + ')';
    return node;
  }

  // MaxVio of one layer: (max - mean) / mean.
  function violation(shares) {
    const average = mean(shares);
    return average > 0 ? Math.max(...shares.filter(isNumber)) / average - 1 : 0;
  }

  const column = (run, key) => run.steps[key] || [];
  const measured = (run, key) => column(run, key).some(isNumber);

  // ---- summary ----------------------------------------------------------------------------------------------------

  function trainingSeconds(run) {  // each logged step stands for those since the one before
    const steps = column(run, 'step');
    return column(run, 'step_seconds').reduce(
      (sum, seconds, i) => sum + (isNumber(seconds) ? seconds * (steps[i] - (i ? steps[i - 1] : 0)) : 0), 0);
  }

  function summaryOf(run) {
    const planned = new Map(run.config).get('train.steps');
    const tail = column(run, 'lm_loss').slice(-10);
    const items = [
      ['Steps', whole(last(column(run, 'step'))), planned ? 'of ' + whole(Number(planned)) : ''],
      ['Tokens', short(last(column(run, 'tokens'))), 'trained on'],
    ];
    if (run.forced_routing) items.unshift(['Routing', 'forced', run.forced_routing + ': a benchmark, not a model']);
    if (run.parameters) {
      items.push(['Parameters', short(run.parameters.total), short(run.parameters.active) + ' active for a token']);
    }
    items.push(['Training loss', significant(mean(tail), 4), 'mean of the last ' + tail.length + ' rows']);
    items.push(['Throughput', short(median(column(run, 'tokens_per_sec'))), 'tokens a second, median']);
    if (measured(run, 'model_gflops')) {
      items.push(['Compute', short(median(column(run, 'model_gflops'))), 'model GFLOP/s, median']);
    }
    if (measured(run, 'mfu')) items.push(['MFU', percent(median(column(run, 'mfu'))), 'of the peak rate, median' +
      (measured(run, 'share_of_product') ? '; ' + percent(median(column(run, 'share_of_product'))) + ' of a product\'s' : '')]);
    items.push(['Time in steps', duration(trainingSeconds(run)), '']);
    items.push(['MaxVio', significant(last(column(run, 'max_vio')), 3), 'at the last step; 0 is balance']);
    items.push(['Peak memory', mebibytes(last(column(run, 'peak_memory_bytes'))), 'resident']);
    if (run.steps.peak_device_memory_bytes) {
      items.push(['Peak GPU memory', mebibytes(last(column(run, 'peak_device_memory_bytes'))), 'of one GPU']);
    }
    const skipped = last(column(run, 'skipped_steps'));
    if (skipped > 0) items.push(['Skipped steps', String(skipped), 'refused: not finite, or an outlier']);
    return items;
  }

  function runHeading(index) {
    return element('span', {}, swatch(styleOf(index)), runs[index].name);
  }

  // Each says its step; one that does not is of its row's.
  function drawWarnings() {
    const blocks = runs.flatMap((run, i) => {
      const items = run.warnings.map(({step, text}) => {
        const [opening] = text.match(/^step \d+/) || [''];
        return element('li', {}, element('b', {}, opening || 'step ' + step + ': '), text.slice(opening.length));
      });
      const list = items.length ? [element('ul', {}, ...items)] : [];
      return several && list.length ? [element('h3', {}, runHeading(i)), ...list] : list;
    });
    if (!blocks.length) return leaveOut('warnings');
    byId('warnings').replaceChildren(element('div', {class: 'card warnings'}, element('h2', {}, 'Warnings'), ...blocks));
  }

  function drawSummary() {
    if (several) {
      byId('title').textContent = runs.length + ' runs side by side';
      byId('runs').replaceChildren(...runs.map((run, i) => runHeading(i)));
    }
    const summaries = runs.map(summaryOf);
    if (!several) {
      const tiles = summaries[0].map(([label, value, note]) =>
        element('div', {class: 'tile'}, element('dt', {}, label), element('dd', {}, value),
          note ? element('dd', {}, note) : null));
      byId('summary').replaceChildren(element('dl', {class: 'tiles'}, ...tiles));
      return;
    }
    const labels = [...new Set(summaries.flat().map(([label]) => label))];
    const rows = labels.map((label) => {
      const items = summaries.map((summary) => summary.find(([other]) => other === label) || [label, '–', '']);
      const notes = new Set(items.map(([, , note]) => note));  // one that all share stands beside the label
      const soft = (note) => element('span', {class: 'soft'}, ' ' + note);
      return element('tr', {}, element('th', {}, label, notes.size === 1 ? soft(items[0][2]) : null),
        ...items.map(([, value, note]) =>
          element('td', {class: 'number'}, value, notes.size > 1 && note ? soft(note) : null)));
    });
    byId('summary').replaceChildren(table(['', ...runs.map((run, i) => runHeading(i))], rows));
  }

  function table(headings, rows) {
    const head = headings.map((heading, i) => element('th', {class: i ? 'number' : ''}, heading));
    return element('div', {class: 'card scroll'}, element('table', {class: 'wide'},
      element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows)));
  }

  function drawEvaluation() {
    const sources = [...new Set(runs.flatMap((run) => run.evals.map((source) => source.source)))].sort();
    if (!sources.length) return leaveOut('evaluation');
    const of = (run, name) => run.evals.find((source) => source.source === name);
    let headings, rows;
    if (several) {
      headings = ['Source', ...runs.map((run, i) => runHeading(i))];
      rows = sources.map((name) => {
        const losses = runs.map((run) => last((of(run, name) || {}).loss));
        const best = Math.min(...losses.filter(isNumber));
        return element('tr', {}, element('th', {}, name), ...losses.map((loss) =>
          element('td', {class: loss === best ? 'number best' : 'number'}, significant(loss, 4))));
      });
    } else {
      headings = ['Source', 'Loss', 'Perplexity', 'Lowest loss', 'Tokens', 'MaxVio'];
      rows = sources.map((name) => {
        const source = of(runs[0], name);
        const lowest = Math.min(...source.loss.filter(isNumber));
        const cells = [significant(last(source.loss), 4), significant(last(source.perplexity), 4),
          significant(lowest, 4) + ' at step ' + whole(source.step[source.loss.indexOf(lowest)]),
          short(last(source.tokens)), significant(last(source.max_vio), 3)];
        return element('tr', {}, element('th', {}, name),
          ...cells.map((cell) => element('td', {class: 'number'}, cell)));
      });
    }
    byId('evaluation').replaceChildren(
      element('div', {class: 'section-head'}, element('h2', {}, 'Evaluation'),
        element('span', {class: 'soft'}, several ? 'last loss by source, in nats a token; the lowest in colour'
          : 'last one of each source, in nats a token')),
      table(headings, rows));
  }

  // ---- charts -----------------------------------------------------------------------------------------------------

  let charts = [];
  let linking = false;  // one chart is passing its zoom or its cursor on to the others

  // Exponential average over rows, unbiased at its start. A gap stays a gap.
  function averaged(values, weight) {
    let sum = 0, total = 0;
    return values.map((value) => {
      if (!isNumber(value)) return value;
      sum = weight * sum + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return sum / total;
    });
  }

  // The mean of the average of what came before and of what comes after: it follows a falling loss without lagging.
  function smoothed(values, weight) {
    const before = averaged(values, weight), after = averaged([...values].reverse(), weight).reverse();
    return before.map((value, i) => isNumber(value) ? (value + after[i]) / 2 : value);
  }

  // The evaluation's step as a position on the x axis.
  function positions(run, steps, axis) {
    if (axis === 'step') return steps;
    const known = column(run, 'step'), tokens = column(run, 'tokens');
    return steps.map((step) => {
      let i = known.findIndex((other) => other >= step);
      if (i < 0) i = known.length - 1;
      return known.length && known[i] ? Math.round(tokens[i] * step / known[i]) : 0;
    });
  }

  function runSeries(key, axis, smoothing) {
    const list = [];
    runs.forEach((run, i) => {
      if (!measured(run, key)) return;
      const x = column(run, axis), y = column(run, key), label = several ? run.name : 'train';
      if (smoothing > 0) {
        list.push({x, y, label, style: {...styleOf(i), color: styleOf(i).color + '40'}, width: 1, quiet: true});
        list.push({x, y: smoothed(y, smoothing), label, style: styleOf(i), width: 2});
      } else {
        list.push({x, y, label, style: styleOf(i), width: 1.6});
      }
    });
    return list;
  }

  // What stays as it was configured stands there: a line where it changes over a run.
  function coefficientChart(axis) {
    const changes = runs.some((run) => new Set(column(run, 'aux_loss_coef').filter(isNumber)).size > 1);
    const unit = runs.some((run) => run.coefficients_by_layer) ? 'weight of the balance loss, mean of layers' : 'weight of the balance loss';
    return {title: 'Balance coefficient', unit, series: changes ? runSeries('aux_loss_coef', axis, 0) : []};
  }

  function evalSeries(run, source, axis, label, style) {
    return {x: positions(run, source.step, axis), y: source.loss, label, style, width: 1.6, points: true};
  }

  function chartList() {
    const axis = byId('x-axis').value;
    const smoothing = Number(byId('smoothing').value);
    const log = byId('log-loss').checked;
    const loss = {title: several ? 'Training loss' : 'Loss', unit: 'nats a token', wide: true, log,
      series: runSeries('lm_loss', axis, smoothing)};
    const list = [loss];
    if (several) {
      for (const name of [...new Set(runs.flatMap((run) => run.evals.map((source) => source.source)))].sort()) {
        const series = runs.flatMap((run, i) => run.evals.filter((source) => source.source === name)
          .map((source) => evalSeries(run, source, axis, run.name, styleOf(i))));
        list.push({title: 'Evaluation loss: ' + name, unit: 'nats a token', log, series});
      }
    } else {
      loss.series.push(...runs[0].evals.map((source, i) =>
        evalSeries(runs[0], source, axis, 'eval ' + source.source, styleOf(i + 1))));
    }
    list.push(
      {title: 'Learning rate', unit: '', series: runSeries('learning_rate', axis, 0)},
      {title: 'Gradient norm', unit: 'before clipping', series: runSeries('grad_norm', axis, smoothing)},
      {title: 'Throughput', unit: 'tokens a second', short: true, series: runSeries('tokens_per_sec', axis, smoothing)},
      {title: 'MaxVio', unit: 'worst layer; 0 is balance', series: runSeries('max_vio', axis, smoothing)},
      {title: 'Balance loss', unit: 'summed over layers; 1 a layer is balance',
        series: runSeries('aux_loss', axis, smoothing)},
      coefficientChart(axis),
      {title: 'Router z-loss', unit: 'summed over layers', series: runSeries('z_loss', axis, smoothing)},
      ...layerCharts.map(([key, title, unit]) => ({title, unit, series: runSeries(key, axis, smoothing)})),
      {title: 'Compute', unit: 'model GFLOP/s', short: true, series: runSeries('model_gflops', axis, smoothing)},
      {title: 'MFU', unit: 'share of the peak rate', series: runSeries('mfu', axis, smoothing)});
    return list.filter((chart) => chart.series.length);
  }

  // One row for each x of any series: null where a series says nothing, NaN (a gap) where its number was not finite.
  function rowsOf(series) {
    const xs = [...new Set(series.flatMap((one) => one.x))].sort((a, b) => a - b);
    const at = new Map(xs.map((x, i) => [x, i]));
    const rows = xs.map((x) => [x, ...series.map(() => null)]);
    series.forEach((one, s) => one.x.forEach((x, i) => {
      rows[at.get(x)][s + 1] = isNumber(one.y[i]) ? one.y[i] : NaN;
    }));
    return rows;
  }

  function legendOf(series, axis, format, data) {
    const fragment = document.createDocumentFragment();
    if (data.x !== undefined) fragment.append(element('span', {}, axis + ' ' + short(data.x)));
    data.series.forEach((one, s) => {
      if (series[s].quiet) return;
      const value = isNumber(one.y) ? element('b', {}, format(one.y)) : null;
      fragment.append(element('span', {}, swatch(series[s].style), series[s].label, value));
    });
    return fragment;
  }

  function drawChart(chart) {
    const axis = byId('x-axis').value;
    const format = chart.short ? short : (value) => significant(value, 4);
    const plot = element('div', {class: 'plot'}), legend = element('div', {class: 'legend'});
    byId('charts').append(element('div', {class: chart.wide ? 'card chart wide' : 'card chart'},
      element('div', {class: 'chart-head'},
        element('h3', {}, chart.title), element('span', {class: 'soft'}, chart.unit)),
      legend, plot));

    const names = chart.series.map((one, i) => String(i));  // labels may repeat, dygraphs' names may not
    const options = {};
    chart.series.forEach((one, i) => {
      options[names[i]] = {color: one.style.color, strokePattern: one.style.dash.length ? one.style.dash : null,
        strokeWidth: one.width, drawPoints: Boolean(one.points), pointSize: 2.5,
        highlightCircleSize: one.quiet ? 0 : 3};
    });
    const others = (me) => charts.filter((other) => other !== me);
    const link = (action) => {
      if (linking) return;
      linking = true;
      action();
      linking = false;
    };
    charts.push(new Dygraph(plot, rowsOf(chart.series), {
      labels: ['x', ...names], series: options, labelsDiv: legend, legend: 'always',
      legendFormatter: (data) => legendOf(chart.series, axis, format, data),
      connectSeparatedPoints: true, logscale: Boolean(chart.log), xRangePad: 6, yRangePad: 8,
      gridLineColor: css('--grid'), axisLineColor: css('--line'),
      axes: {
        x: {axisLabelFormatter: short, drawGrid: false, pixelsPerLabel: 70},
        y: {axisLabelFormatter: chart.short ? short : (value) => significant(value, 3), axisLabelWidth: 52,
          pixelsPerLabel: 30},
      },
      drawCallback: (me, initial) => {
        if (!initial) link(() => others(me).forEach((other) =>
          other.updateOptions({dateWindow: me.isZoomed('x') ? me.xAxisRange() : null})));
      },
      highlightCallback: function (event, x) {
        link(() => others(this).forEach((other) => other.setSelection(nearestRow(other, x))));
      },
      unhighlightCallback: function () {
        link(() => others(this).forEach((other) => other.clearSelection()));
      },
    }));
  }

  function nearestRow(chart, x) {
    let low = 0, high = chart.numRows() - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (chart.getValue(middle, 0) < x) low = middle + 1;
      else high = middle;
    }
    return low > 0 && x - chart.getValue(low - 1, 0) < chart.getValue(low, 0) - x ? low - 1 : low;
  }

  function drawCharts() {
    charts.forEach((chart) => chart.destroy());
    charts = [];
    byId('charts').replaceChildren();
    chartList().forEach(drawChart);
    document.documentElement.dataset.charts = charts.length;
  }

  // ---- expert load ------------------------------------------------------------------------------------------------

  let loadEnds = null;  // [low, even, high] as [r, g, b], of the theme in use

  // Colour of a load as a multiple of the even share: half and less is the low colour, double and more the high one.
  function loadColor(multiple) {
    const [low, even, high] = loadEnds;
    const t = isNumber(multiple) && multiple > 0 ? Math.max(-1, Math.min(1, Math.log2(multiple))) : -1;
    const end = t < 0 ? low : high;
    return even.map((from, i) => Math.round(from + Math.abs(t) * (end[i] - from)));
  }

  function drawBalance() {
    const withLoad = runs.map((run, i) => [run, i]).filter(([run]) => run.expert_load.step.length);
    if (!withLoad.length) return leaveOut('balance');
    const scale = element('span', {class: 'load-scale'}, '½×', element('i'), '2× the even share');
    const blocks = withLoad.map(([run, i]) => loadBlock(run, i));
    byId('balance').replaceChildren(
      element('div', {class: 'section-head'}, element('h2', {}, 'Expert load by layer'), scale),
      element('div', {class: several ? 'load-runs several' : 'load-runs'}, ...blocks));
  }

  function loadBlock(run, index) {
    const {step, load} = run.expert_load;
    const readout = element('p', {class: 'load-part'}, '');
    const quietReadout = 'steps ' + whole(step[0]) + ' to ' + whole(last(step)) + ', one row an expert';
    readout.textContent = quietReadout;
    const times = last(load).map((unused, layer) => loadOverTime(run, layer, (text) => {
      readout.textContent = text || quietReadout;
    }));
    return element('div', {class: 'card load-run'}, several ? element('h3', {}, runHeading(index)) : null,
      element('div', {class: 'load-grid'},
        element('div', {},
          element('p', {class: 'load-part'}, 'step ' + whole(last(step)) + ', per cent of the layer’s assignments'),
          loadTable(last(load))),
        element('div', {}, readout, element('div', {class: 'load-times'}, ...times))));
  }

  function loadTable(layers) {
    const experts = Math.max(...layers.map((shares) => shares.length));
    const dense = experts > 16;
    const head = element('tr', {}, element('th', {}, 'layer'),
      ...Array.from({length: experts}, (unused, e) => element('th', {}, dense && e % 8 ? '' : String(e))),
      element('th', {title: '(max − mean) / mean'}, 'MaxVio'));
    const rows = layers.map((shares, layer) => element('tr', {}, element('th', {}, String(layer)),
      ...shares.map((share, e) => {
        const multiple = share * shares.length;
        const cell = element('td', {title: 'layer ' + layer + ', expert ' + e + ': ' + percent(share)},
          dense ? '' : isNumber(share) ? (100 * share).toFixed(1) : '–');
        const [red, green, blue] = loadColor(multiple);
        cell.style.background = 'rgb(' + [red, green, blue] + ')';
        cell.style.color = 0.3 * red + 0.59 * green + 0.11 * blue > 135 ? '#17191d' : '#ffffff';
        return cell;
      }), element('td', {class: 'vio'}, violation(shares).toFixed(2))));
    return element('table', {class: dense ? 'load-table dense' : 'load-table'}, element('thead', {}, head),
      element('tbody', {}, ...rows));
  }

  // One pixel a step and expert, stretched by the style sheet.
  function loadOverTime(run, layer, tell) {
    const {step, load} = run.expert_load;
    const experts = last(load)[layer].length;
    const canvas = element('canvas', {width: step.length, height: experts, role: 'img',
      'aria-label': 'load of the experts of layer ' + layer + ' over time'});
    canvas.style.height = experts * (experts <= 16 ? 7 : experts <= 64 ? 2 : 1) + 'px';
    const context = canvas.getContext('2d');
    const image = context.createImageData(step.length, experts);
    load.forEach((layers, t) => (layers[layer] || []).forEach((share, e) => {
      image.data.set([...loadColor(share * experts), 255], 4 * (e * step.length + t));
    }));
    context.putImageData(image, 0, 0);
    canvas.addEventListener('mousemove', (event) => {
      const box = canvas.getBoundingClientRect();
      const cell = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
      const t = cell((event.clientX - box.left) / box.width, step.length);
      const e = cell((event.clientY - box.top) / box.height, experts);
      tell('layer ' + layer + ', expert ' + e + ', step ' + step[t] + ': ' + percent((load[t][layer] || [])[e]));
    });
    canvas.addEventListener('mouseleave', () => tell(''));
    return element('figure', {class: 'load-time'}, element('figcaption', {}, 'layer ' + layer), canvas);
  }

  // ---- configuration ----------------------------------------------------------------------------------------------

  function drawConfiguration() {
    const configs = runs.map((run) => new Map(run.config));
    const keys = [...new Set(runs.flatMap((run) => run.config.map(([key]) => key)))];
    if (!keys.length) return leaveOut('configuration');
    const sections = new Map();
    for (const key of keys) {
      const [first, ...rest] = key.split('.');
      const section = rest.length ? first : 'other';
      if (!sections.has(section)) sections.set(section, []);
      const values = configs.map((config) => config.has(key) ? config.get(key) : '–');
      sections.get(section).push({name: rest.join('.') || first, values, differs: new Set(values).size > 1});
    }
    const runNames = () => element('thead', {}, element('tr', {}, element('th', {}),
      ...runs.map((run, i) => element('th', {}, runHeading(i)))));
    const cards = [...sections].map(([section, rows]) => element('div',
      {class: rows.some((row) => row.differs) ? 'card scroll differs' : 'card scroll'}, element('h3', {}, section),
      element('table', {}, several ? runNames() : null,
        element('tbody', {}, ...rows.map((row) => element('tr', {class: row.differs ? 'differs' : ''},
          element('th', {}, row.name), ...row.values.map((value) => element('td', {}, value))))))));
    const grid = element('div', {class: several ? 'config several only-differing' : 'config'}, ...cards);
    const head = element('div', {class: 'section-head'}, element('h2', {}, 'Configuration'));
    if (several) {
      const box = element('input', {type: 'checkbox'});
      box.checked = true;
      box.addEventListener('change', () => grid.classList.toggle('only-differing', box.checked));
      head.append(element('div', {class: 'controls'}, element('label', {}, box, 'only what differs')));
    }
    byId('configuration').replaceChildren(head, grid);
  }

  // ---- the page ---------------------------------------------------------------------------------------------------

  function drawAll() {
    loadEnds = ['--load-low', '--load-even', '--load-high'].map(
      (name) => css(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
    drawWarnings();
    drawSummary();
    drawEvaluation();
    drawCharts();
    drawBalance();
    drawConfiguration();
  }

  byId('controls').addEventListener('input', drawCharts);
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  dark.addEventListener('change', drawAll);
  drawAll();
  document.documentElement.dataset.ready = 'true';
})();
