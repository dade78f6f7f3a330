'use strict';
// Charts as SVG, drawn at the width that their box has. Of the analysis they know nothing; text only ever becomes a text node.

// element('td', {class: 'number'}, 'text', child, ...)
function element(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function drawn(tag, attributes, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Round numbers that cover [low, high], some five of them.
function ticksOver(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let i = Math.floor(low / step + 1e-9); i * step < high + step * 0.999; ++i) ticks.push(i * step);
  return ticks;
}

// The frame of a chart: a y axis over the values, and where a value and an x position lie.
function frameOf(box, values, height, format) {
  const width = Math.max(220, box.clientWidth), left = 44, right = 10, top = 8, bottom = 24;
  const finite = values.filter(isNumber);
  const ticks = ticksOver(Math.min(0, ...finite), Math.max(1e-6, ...finite));
  const low = ticks[0], high = ticks[ticks.length - 1];
  const y = (value) => top + (high - value) / (high - low) * (height - top - bottom);
  const svg = drawn('svg', {viewBox: '0 0 ' + width + ' ' + height, role: 'img'});
  for (const tick of ticks) {
    svg.append(drawn('line', {class: 'grid', x1: left, x2: width - right, y1: y(tick), y2: y(tick)}),
      drawn('text', {x: left - 6, y: y(tick) + 4, 'text-anchor': 'end'}, format(tick)));
  }
  const x = (share) => left + share * (width - left - right);
  const xLabel = (share, text) => svg.append(
    drawn('text', {x: x(share), y: height - 8, 'text-anchor': 'middle'}, text));
  return {svg, x, y, xLabel, inner: width - left - right};
}

function swatch({color, dash}) {
  const node = element('span', {class: dash && dash.length ? 'swatch dashed' : 'swatch'});
  let end = 0;  // a dashed line's is a piece of it
  const pieces = (dash || []).map((length, i) => (i % 2 ? 'transparent ' : color + ' ') + end + 'px ' + (end += length) + 'px');
  node.style.background = pieces.length ? 'repeating-linear-gradient(90deg, ' + pieces + ')' : color;
  return node;
}

function legendOf(series, format) {
  return element('div', {class: 'legend'}, ...series.filter((one) => one.label).map((one) =>
    element('span', {}, swatch(one.style), one.label,
      format && one.mark !== undefined ? element('b', {}, format(one.mark)) : null)));
}

// A card with a title. draw(box) gives the picture in drawFigures(), when all cards stand, since each changes how wide the
// others are.
let undrawn = [];
function figure(parent, title, note, legend, draw) {
  const box = element('div', {class: 'figure'});
  parent.append(element('div', {class: 'card'},
    element('div', {class: 'chart-head'}, element('h3', {}, title), element('span', {class: 'soft'}, note)),
    legend, box));
  undrawn.push([box, draw, title + ', ' + note]);
}

function drawFigures() {
  for (const [box, draw, title] of undrawn) {
    const picture = draw(box);
    picture.setAttribute('aria-label', title);
    box.append(picture);
  }
  undrawn = [];
}

// series: [{label, values: [n], style}], one bar of each in each of n groups. rule: a value all bars are held against.
function barFigure(parent, {title, note, series, names, rule, format}) {
  figure(parent, title, note, null, (box) => {
    const values = series.flatMap((one) => one.values);
    const {svg, x, y, xLabel, inner} = frameOf(box, [...values, rule], 190, format);
    const group = inner / names.length, bar = group * 0.84 / series.length;
    names.forEach((name, g) => {
      if (group > 16 || g % Math.ceil(18 / group) === 0) xLabel((g + 0.5) / names.length, name);
      series.forEach((one, s) => {
        const value = one.values[g];
        svg.append(drawn('rect', {x: x(g / names.length) + group * 0.08 + s * bar, y: y(value),
          width: Math.max(0.5, bar * 0.9), height: Math.max(0, y(0) - y(value)), fill: one.style.color},
        drawn('title', {}, one.label + ', expert ' + name + ': ' + format(value))));
      });
    });
    svg.append(drawn('line', {class: 'rule', x1: x(0), x2: x(1), y1: y(rule), y2: y(rule)}));
    return svg;
  });
}

// series: [{label, values: [n], style}] at the places `names`. rules: [{label, value}], the same everywhere.
function lineFigure(parent, {title, note, series, names, rules, format}) {
  figure(parent, title, note, legendOf(series), (box) => {
    const values = series.flatMap((one) => one.values).concat(rules.map((rule) => rule.value));
    const {svg, x, y, xLabel, inner} = frameOf(box, values, 230, format);
    const place = (i) => names.length > 1 ? x(0.02 + 0.96 * i / (names.length - 1)) : x(0.5);
    const every = Math.max(1, Math.ceil(names.length * 26 / inner));
    names.forEach((name, i) => {
      if (i % every === 0) xLabel((place(i) - x(0)) / inner, name);
    });
    for (const rule of rules) {
      svg.append(drawn('line', {class: 'rule', x1: x(0), x2: x(1), y1: y(rule.value), y2: y(rule.value)}),
        drawn('text', {x: x(1), y: y(rule.value) - 4, 'text-anchor': 'end'}, rule.label + ' ' + format(rule.value)));
    }
    for (const one of series) {
      const {color, dash} = one.style;
      const points = one.values.map((value, i) => isNumber(value) ? [place(i), y(value)] : null);
      const path = points.map((point, i) => point ? (i && points[i - 1] ? 'L' : 'M') + point.map((p) => p.toFixed(1)) : '').join('');
      svg.append(drawn('path', {d: path || 'M0 0', fill: 'none', stroke: color, 'stroke-width': 1.8,
        'stroke-dasharray': (dash || []).join(' ')}));
      points.forEach((point, i) => {
        if (point) svg.append(drawn('circle', {cx: point[0], cy: point[1], r: names.length > 40 ? 1.5 : 2.6, fill: color},
          drawn('title', {}, one.label + ', ' + names[i] + ': ' + format(one.values[i]))));
      });
    }
    return svg;
  });
}
