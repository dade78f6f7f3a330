'use strict';
// What figures are drawn from: nodes of SVG, scales, axes. Of the study it knows nothing. Colours are the style
// sheet's, so that a theme and a printer have their own.

function svg(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes || {}))
    if (value !== null) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const extent = (values) =>
  values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);

// 1, 2 or 5 times a power of ten, so that about `count` steps fill the span.
function niceStep(span, count) {
  const rough = span / Math.max(1, count), power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) || 10);
}

const withMinus = (text) => text.replace('-', '−');

function linearTicks(low, high, count) {
  const step = niceStep(high - low, count), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i) {
    ticks.push({
      value: i * step,
      text: Math.abs(i * step) >= 10000 ? short(i * step) : withMinus((i * step).toFixed(Math.min(digits, 12)))
    });
  }
  return ticks;
}

function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  const factors = decades < 1.2 ? [1, 2, 3, 5, 7] : decades <= 3 ? [1, 2, 5] : [1];
  const ticks = [], every = Math.max(1, Math.ceil(decades / count));
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
    if (decades > 3 && power % every) continue;
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push({value, text: significant(value, 2)});
    }
  }
  return ticks;
}

// Whether numbers are so far apart that a linear axis would heap most of them at its foot.
function wantsLog(values) {
  const positive = values.filter((value) => value > 0);
  if (positive.length < values.filter(isNumber).length && values.some((value) => value < 0)) return false;
  const [low, high] = extent(positive);
  return positive.length > 2 && high / low >= 12;
}

// {at(value), ticks, zero}: values to pixels from `from` to `to`. On a logarithmic axis, which has no place for 0, zero
// is a place of its own before its foot; then `zero` is where the axis is broken.
function scaleOf(values, from, to, {log = false, count = 5, pad = 0.06, foot = null} = {}) {
  const present = values.filter(isNumber);
  const positive = present.filter((value) => value > 0);
  if (log && positive.length) {
    let [low, high] = extent(positive);
    if (low === high) [low, high] = [low / 2, high * 2];
    const broken = positive.length < present.length, slot = broken ? Math.sign(to - from) * 34 : 0;
    const margin = (high / low) ** pad, start = Math.log(low / margin), end = Math.log(high * margin);
    const at = (value) =>
      value > 0 ? from + slot + (to - from - slot) * (Math.log(value) - start) / (end - start) : from + slot * 0.35;
    const ticks = logTicks(low / margin, high * margin, count);
    if (broken) ticks.unshift({value: 0, text: '0'});
    return {at, ticks, zero: broken ? from + slot * 0.75 : null};
  }
  let [low, high] = extent(present.length ? present : [0, 1]);
  if (foot !== null) low = Math.min(low, foot);
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.05, high + Math.abs(high) * 0.05];
  const margin = (high - low) * pad, bottom = foot !== null && low === foot ? low : low - margin, top = high + margin;
  return {
    at: (value) => from + (to - from) * (value - bottom) / (top - bottom),
    ticks: linearTicks(bottom, top, count),
    zero: null
  };
}

// Where an axis of values may end so that a few far ones, at most a fifth, do not press all others together: null where
// none is far.
function cutOf(values) {
  const sorted = values.filter(isNumber).sort((a, b) => a - b), n = sorted.length;
  const span = (left) => sorted[n - 1 - left] - sorted[0];
  for (let left = 1; left <= Math.max(1, Math.floor(n / 5)) && n - left >= 3; ++left) {
    if (span(left) > 0 && span(0) > 2.5 * span(left)) return sorted[n - 1 - left] + 0.15 * span(left);
  }
  return null;
}

// The mark of what lies beyond the end of an axis.
const beyondMark = (x, y, turn, name) => svg('path', {
  class: name,
  d: 'M-5 4L5 4L0 -5Z',
  transform: 'translate(' + x.toFixed(1) + ' ' + y.toFixed(1) + ') rotate(' + turn + ')'
});

// Equal places for words.
function placesOf(words, from, to) {
  const at = (i) => from + (to - from) * (i + 0.5) / words.length;
  return {at, ticks: words.map((text, value) => ({value, text})), zero: null};
}

// The frame of a plot: {left, right, top, bottom} in pixels, x and y scales, their titles.
function axes(frame, x, y, titles = {}) {
  const {left, right, top, bottom} = frame;
  const group = svg('g', {class: 'axes'});
  let lastEnd = -Infinity;
  for (const {value, text} of y.ticks) {
    const at = y.at(value);
    group.append(
      svg('line', {class: 'grid', x1: left, x2: right, y1: at, y2: at}),
      svg('text', {x: left - 6, y: at + 4, 'text-anchor': 'end'}, text));
  }
  for (const {value, text} of x.ticks) {
    const at = x.at(value), half = text.length * 3.3;
    group.append(svg('line', {class: 'tick', x1: at, x2: at, y1: bottom, y2: bottom + 4}));
    if (at - half < lastEnd + 5) continue;  // it would run into the one before
    lastEnd = at + half;
    group.append(svg('text', {x: at, y: bottom + 17, 'text-anchor': 'middle'}, text));
  }
  group.append(svg('line', {class: 'axis', x1: left, x2: right, y1: bottom, y2: bottom}));
  if (x.zero !== null)
    group.append(svg('path', {class: 'break', d: 'M' + (x.zero - 4) + ' ' + (bottom + 5) + 'l4 -10m1 10l4 -10'}));
  if (titles.x)
    group.append(
      svg('text', {class: 'axis-title', x: (left + right) / 2, y: bottom + 36, 'text-anchor': 'middle'}, titles.x));
  if (titles.y)
    group.append(svg('text', {class: 'axis-title', x: left, y: top - 10, 'text-anchor': 'start'}, titles.y));
  return group;
}

// A broken line leaves out what is not a number.
function pathOf(points) {
  let pen = 'M';
  return points
    .map(([x, y]) => {
      if (!isNumber(x) || !isNumber(y)) {
        pen = 'M';
        return '';
      }
      const piece = pen + x.toFixed(1) + ' ' + y.toFixed(1);
      pen = 'L';
      return piece;
    })
    .join('');
}

// An error bar in both directions about (x, y), in pixels: [from, to] each or null.
function cross(x, y, alongX, alongY, name) {
  return svg(
    'g', {class: name}, alongX ? svg('line', {x1: alongX[0], x2: alongX[1], y1: y, y2: y}) : null,
    alongY ? svg('line', {x1: x, x2: x, y1: alongY[0], y2: alongY[1]}) : null);
}

const textWidth = (text) => 6.6 * [...text].length;

// Names beside marks so that none covers another name or a mark; those that find no place are left out and returned.
function placeLabels(group, labels, marks, frame) {
  const taken = marks.map(({x, y}) => ({x0: x - 6, x1: x + 6, y0: y - 6, y1: y + 6}));
  const free = (box) => box.x0 >= frame.left && box.x1 <= frame.right && box.y0 >= frame.top - 6 &&
    box.y1 <= frame.bottom &&
    taken.every((other) => box.x1 < other.x0 || box.x0 > other.x1 || box.y1 < other.y0 || box.y0 > other.y1);
  const left = [];
  for (const {x, y, text, name} of labels) {
    const width = textWidth(text), tries = [];
    for (const radius of [9, 18, 30, 44, 60]) {
      for (const [dx, dy] of [
             [1, 0], [-1, 0], [0.7, -0.8], [0.7, 0.8], [-0.7, -0.8], [-0.7, 0.8], [0, -1.3], [0, 1.3]]) {
        const cx = x + radius * dx, cy = y + radius * dy;
        const x0 = dx > 0 ? cx : dx < 0 ? cx - width : cx - width / 2;
        tries.push({
          radius,
          anchor: dx > 0 ? 'start'
            : dx < 0     ? 'end'
                         : 'middle',
          cx,
          cy,
          x0,
          x1: x0 + width,
          y0: cy - 6,
          y1: cy + 6
        });
      }
    }
    const place = tries.find(free);
    if (!place) {
      left.push(text);
      continue;
    }
    taken.push(place);
    if (place.radius > 9) group.append(svg('line', {class: 'leader', x1: x, y1: y, x2: place.cx, y2: place.cy}));
    group.append(svg(
      'text', {class: 'mark-label ' + (name || ''), x: place.cx, y: place.cy + 4, 'text-anchor': place.anchor}, text));
  }
  return left;
}
