'use strict';
// The figures of a study's report, each from its data and options to a node.

const frameOf = (width, height, {left = 58, right = 12, top = 26, bottom = 44} = {}) =>
  ({left, right: width - right, top, bottom: height - bottom});
const canvasOf = (width, height, label) =>
  svg('svg', {viewBox: '0 0 ' + width + ' ' + height, width, height, role: 'img', 'aria-label': label});
const summaryOf = (setting, key) => {
  const [n, average, sd, half] = setting.summary[key] || [0, null, null, null];
  return {n, mean: average, sd, half};
};

// Quality (up is worse, as it is a loss) against a measure of balance: each seed, the means with their spreads, and the
// front.
function frontFigure(study, {width, balance, log, cut, base}) {
  const tall = Math.round(Math.min(520, Math.max(340, width * 0.52)));
  const frame = frameOf(width, tall, {bottom: 50, right: 18});
  const measure = study.measures.find(({key}) => key === balance), quality = study.measures[0];
  const settings =
    study.settings
      .map(
        (setting, i) => ({
          i,
          name: setting.name,
          x: summaryOf(setting, balance),
          y: summaryOf(setting, 'quality'),
          runs: setting.runs.map(({values}) => [values[balance], values.quality]).filter((pair) => pair.every(isNumber))
        }))
      .filter(({x, y}) => isNumber(x.mean) && isNumber(y.mean));
  const front = study.fronts[balance].map((i) => settings.find((setting) => setting.i === i)).filter(Boolean);
  const spread = ({mean, sd}) => isNumber(sd) ? [mean - sd, mean + sd] : [mean];
  const xs = settings.flatMap(
    ({x, runs}) => [...spread(x).filter((v) => !log || v > 0 || x.mean === 0), ...runs.map(([v]) => v)]);
  const x = scaleOf(xs, frame.left, frame.right, {log, count: width / 110});
  const end = cut ? cutOf(settings.map((one) => one.y.mean)) : null;
  const isBeyond = (one) => end !== null && one.y.mean > end;
  const heights =
    settings.filter((one) => !isBeyond(one)).flatMap((one) => [...spread(one.y), ...one.runs.map(([, v]) => v)]);
  const y = scaleOf(
    end === null ? heights : [...heights.filter((v) => v <= end), end], frame.bottom, frame.top, {count: 7, pad: 0.04});
  const root = canvasOf(
    width, tall,
    quality.title + ' against ' + measure.title + ' of ' + settings.length +
      ' settings; on the front: ' + front.map(({name}) => name).join(', '));
  root.append(axes(frame, x, y, {
    x: measure.title + (log ? ' (log scale)' : '') + ' → less balanced',
    y: quality.title + ', nats a token ↑ worse'
  }));
  const seeds = svg('g', {class: 'seeds'}), spreads = svg('g', {class: 'spreads'}), marks = svg('g', {class: 'marks'}),
        names = svg('g', {});
  // What the front reaches: no worse than its members in either direction.
  const steps = front.flatMap(
    (one, k) => k ? [[x.at(one.x.mean), y.at(front[k - 1].y.mean)], [x.at(one.x.mean), y.at(one.y.mean)]]
                  : [[x.at(one.x.mean), frame.top], [x.at(one.x.mean), y.at(one.y.mean)]]);
  if (front.length) steps.push([frame.right, y.at(front[front.length - 1].y.mean)]);
  const inside = svg('g', {'clip-path': 'url(#clip-front)'});
  inside.append(svg('path', {class: 'front-line', d: pathOf(steps)}), seeds, spreads);
  root.append(
    svg(
      'clipPath', {id: 'clip-front'},
      svg(
        'rect',
        {x: frame.left - 6, y: frame.top, width: frame.right - frame.left + 12, height: frame.bottom - frame.top})),
    inside, marks, names);
  const places = [];
  for (const one of settings) {
    const member = front.includes(one), beyond = isBeyond(one);
    const cx = x.at(one.x.mean), cy = beyond ? frame.top + 6 : y.at(one.y.mean);
    one.cx = cx;
    one.cy = cy;
    places.push({x: cx, y: cy});
    if (study.repeated && !beyond) {
      for (const [a, b] of one.runs) {
        seeds.append(
          svg('line', {x1: cx, y1: cy, x2: x.at(a), y2: y.at(b)}), svg('circle', {cx: x.at(a), cy: y.at(b), r: 2}));
      }
    }
    const from = Math.max(one.x.mean - one.x.sd, log ? 1e-12 : -Infinity);  // a logarithm has no 0
    const alongX = isNumber(one.x.sd) ? [Math.max(frame.left, x.at(from)), x.at(one.x.mean + one.x.sd)] : null;
    if (!beyond)
      spreads.append(cross(
        cx, cy, alongX, isNumber(one.y.sd) ? [y.at(one.y.mean - one.y.sd), y.at(one.y.mean + one.y.sd)] : null,
        'spread'));
    const name = (member ? 'mark member' : 'mark') + (one.i === base ? ' base' : '');
    const mark = beyond ? beyondMark(cx, cy, 0, name)
      : one.i === base  ? svg('rect', {class: name, x: cx - 5, y: cy - 5, width: 10, height: 10})
                        : svg('circle', {class: name, cx, cy, r: 5});
    mark.append(svg(
      'title', {},
      (one.i + 1) + ' ' + one.name + ': ' + quality.title + ' ' + significant(one.y.mean, 5) + ', ' + measure.title +
        ' ' + significant(one.x.mean, 3)));
    marks.append(mark);
  }
  const named = settings.length <= 40 ? settings : settings.filter((one) => front.includes(one) || one.i === base);
  const longest = Math.max(0, ...named.map(({name}) => textWidth(name)));
  const short = width < 620 || longest > 0.2 * width || settings.length > 24;
  const labels =
    [...named]
      .sort((a, b) => front.includes(b) - front.includes(a))
      .map((one) => ({
             x: one.cx,
             y: one.cy,
             text: (short ? String(one.i + 1) : one.name) + (isBeyond(one) ? ' (' + one.y.mean.toFixed(2) + ')' : ''),
             name: front.includes(one) ? 'member' : ''
           }));
  placeLabels(names, labels, places, frame);
  return {node: root, front, numbered: short, beyond: settings.filter(isBeyond).length};
}

// The mean of a difference with its interval, both cut at the frame's sides; a mean beyond one is a triangle that
// points there.
function differenceMarks([, average, half], x, at, {left, right}) {
  const clear = isNumber(half) && (average - half > 0 || average + half < 0), name = clear ? 'mark member' : 'mark';
  const inside = (value) => Math.max(left, Math.min(right, x.at(value))), center = x.at(average);
  const whisker = isNumber(half)
    ? [svg('line', {class: 'whisker', x1: inside(average - half), x2: inside(average + half), y1: at, y2: at})]
    : [];
  if (center < left || center > right)
    return [...whisker, beyondMark(center < left ? left + 5 : right - 5, at, center < left ? -90 : 90, name)];
  return [...whisker, svg('circle', {class: name, cx: center, cy: at, r: 3.5})];
}

// A forest of differences to the base: a row a setting, the interval, a line at 0.
function forestFigure(study, {width, rows, label, scale, names = true}) {
  const step = 17, top = 8,
        nameWidth = names ? Math.min(0.4 * width, 10 + Math.max(...rows.map(({name}) => textWidth(name)))) : 4;
  const tall = top + step * rows.length + 30;
  const frame = {left: nameWidth, right: width - 10, top, bottom: top + step * rows.length};
  const root = canvasOf(width, tall, label);
  const x = scaleOf(scale, frame.left, frame.right, {count: width / 90});
  root.append(axes(frame, x, {ticks: []}));
  const zero = x.at(0);
  root.append(svg('line', {class: 'zero', x1: zero, x2: zero, y1: top - 4, y2: frame.bottom}));
  rows.forEach(({name, difference}, r) => {
    const at = top + step * (r + 0.5);
    if (names) {
      const fits = Math.floor((nameWidth - 8) / 6.6), letters = [...name];
      root.append(svg(
        'text', {class: 'row-name', x: nameWidth - 6, y: at + 4, 'text-anchor': 'end'},
        letters.length > fits ? letters.slice(0, Math.max(1, fits - 1)).join('') + '…' : name));
    }
    if (!difference) return;
    root.append(...differenceMarks(difference, x, at, frame));
  });
  return root;
}

// A measure against one parameter: numbers on an axis, words in places.
function parameterFigure(study, {width, parameter, key, base}) {
  const tall = 230, frame = frameOf(width, tall);
  const measure = study.measures.find((one) => one.key === key);
  const valueOf = (setting) => (setting.parameters.find(([name]) => name === parameter.key) || [])[1];
  const settings = study.settings.map((setting, i) => ({i, value: valueOf(setting), ...summaryOf(setting, key)}))
                     .filter(({mean: m}) => isNumber(m));
  const words = parameter.numeric ? null : parameter.values.map(wordOf);
  const log = parameter.numeric && wantsLog(parameter.values);
  const x = words ? placesOf(words, frame.left, frame.right)
                  : scaleOf(settings.map(({value}) => value), frame.left, frame.right, {log, count: width / 90});
  const y = scaleOf(
    settings.flatMap(({mean: m, sd}) => isNumber(sd) ? [m - sd, m + sd] : [m]), frame.bottom, frame.top, {count: 5});
  const root =
    canvasOf(width, tall, measure.title + ' against ' + parameter.key + ' of ' + settings.length + ' settings');
  root.append(axes(frame, x, y, {x: parameter.key + (log ? ' (log scale)' : ''), y: measure.title}));
  const at = ({value}) => x.at(words ? words.indexOf(wordOf(value)) : value);
  if (parameter.alone && parameter.numeric) {
    const line = [...settings].sort((a, b) => a.value - b.value);
    root.append(svg('path', {class: 'curve thin', d: pathOf(line.map((one) => [at(one), y.at(one.mean)]))}));
  }
  for (const one of settings) {
    const cy = y.at(one.mean);
    if (isNumber(one.sd))
      root.append(cross(at(one), cy, null, [y.at(one.mean - one.sd), y.at(one.mean + one.sd)], 'spread'));
    root.append(svg(
      'circle', {class: one.i === base ? 'mark member' : 'mark', cx: at(one), cy, r: 4},
      svg('title', {}, study.settings[one.i].name + ': ' + significant(one.mean, 5))));
  }
  return root;
}

const wordOf = (value) => typeof value === 'string' ? value : JSON.stringify(value);

// ---- curves -------------------------------------------------------------------------------------------------------

// {step, mean, low, high} of the runs of a setting; low and high are absent of one run.
function bandOf(step, runs) {
  const present = runs.filter(Boolean), at = (k) => present.map((values) => values[k]).filter(isNumber);
  const band = {step, mean: step.map((unused, k) => mean(at(k)))};
  if (present.length > 1)
    Object.assign(
      band, {low: step.map((unused, k) => extent(at(k))[0]), high: step.map((unused, k) => extent(at(k))[1])});
  return band;
}

// Of the differences to the base, run by run of the same seed, at the steps that both have; null where nothing pairs
// them.
function differenceBand(study, key, i, base) {
  const ours = study.curves[i][key], theirs = (study.curves[base] || {})[key],
        found = study.differences[base].quality[i];
  if (!ours || !theirs || !found || !found[3] || i === base) return null;
  const place = new Map(theirs.step.map((step, k) => [step, k]));
  const step = ours.step.filter((one) => place.has(one)),
        own = ours.step.map((one, k) => [one, k]).filter(([one]) => place.has(one)).map(([, k]) => k);
  const runs = study.settings[i].runs.map(({seed}, r) => {
    const partner = study.settings[base].runs.findIndex((run) => run.seed === seed);
    const a = ours.runs[r], b = theirs.runs[partner];
    return a && b ? step.map((one, k) => a[own[k]] - b[place.get(one)]) : null;
  });
  return runs.some(Boolean) && step.length ? bandOf(step, runs) : null;
}

// Small multiples, a panel a setting. groups: 'loss' (training's line, held-out marks, the base's training dashed),
// 'difference' (both, minus the base's), 'max_vio'.
function curveFigures(study, {group, base, shown}) {
  const band = (i, key) => group === 'difference' ? differenceBand(study, key, i, base)
    : study.curves[i] && study.curves[i][key]     ? bandOf(study.curves[i][key].step, study.curves[i][key].runs)
                                                  : null;
  const panels = shown
                   .map((i) => ({
                          i,
                          line: band(i, group === 'max_vio' ? 'max_vio' : 'lm_loss'),
                          marks: group === 'max_vio' ? null : band(i, 'eval')
                        }))
                   .filter(({line}) => line);
  if (!panels.length) return null;
  const reference = group === 'difference' ? null : band(base, group === 'max_vio' ? 'max_vio' : 'lm_loss');
  const lastStep = Math.max(...panels.map(({line}) => last(line.step)));
  // A loss falls most in its first steps, which would leave the rest no room.
  const early = group === 'max_vio' ? 0 : 0.1 * lastStep;
  const ends = panels.map(({line}) => Math.abs(last(line.mean))), cut = group === 'difference' ? cutOf(ends) : null;
  const near = cut === null ? panels : panels.filter((unused, k) => ends[k] <= cut);  // the others are cut
  const values = near.flatMap(
    ({line, marks}) => [line, marks].filter(Boolean).flatMap(
      (one) => one.step.flatMap(
        (step, k) =>
          step < early && step !== last(one.step) ? [] : [(one.low || one.mean)[k], (one.high || one.mean)[k]])));
  const width = 220, tall = 130, frame = frameOf(width, tall, {left: 38, right: 8, top: 8, bottom: 22});
  const x = scaleOf([0, lastStep], frame.left, frame.right, {pad: 0.02, count: 3, foot: 0});
  x.ticks = x.ticks.map(({value}) => ({value, text: short(value)}));
  const y = scaleOf(
    group === 'difference' ? [...values, 0] : values, frame.bottom, frame.top,
    {count: 4, foot: group === 'max_vio' ? 0 : null});
  const line = ({step}, heights) => pathOf(step.map((one, k) => [x.at(one), y.at(heights[k])]));
  return panels.map(({i, line: curve, marks}) => {
    const clip = 'clip-' + group + '-' + i, end = marks || curve;
    const root =
      canvasOf(width, tall, study.settings[i].name + ' over steps, at the end ' + significant(last(end.mean), 4));
    root.append(
      svg('clipPath', {id: clip}, svg('rect', {
            x: frame.left,
            y: frame.top - 4,
            width: frame.right - frame.left + 4,
            height: frame.bottom - frame.top + 4
          })),
      axes(frame, x, y));
    const inside = svg('g', {'clip-path': 'url(#' + clip + ')'});
    if (group === 'difference')
      inside.append(svg('line', {class: 'zero', x1: frame.left, x2: frame.right, y1: y.at(0), y2: y.at(0)}));
    if (curve.low) {
      const edge = (heights) => curve.step.map((step, k) => [x.at(step), y.at(heights[k])]);
      inside.append(svg('path', {class: 'band', d: pathOf([...edge(curve.high), ...edge(curve.low).reverse()]) + 'Z'}));
    }
    if (reference && i !== base) inside.append(svg('path', {class: 'curve base', d: line(reference, reference.mean)}));
    inside.append(svg('path', {class: 'curve', d: line(curve, curve.mean)}));
    if (marks) {
      marks.step.forEach((step, k) => {
        if (marks.low && marks.step.length <= 25)
          inside.append(svg(
            'line',
            {class: 'whisker', x1: x.at(step), x2: x.at(step), y1: y.at(marks.low[k]), y2: y.at(marks.high[k])}));
        inside.append(svg(
          'circle',
          {class: 'held-out', cx: x.at(step), cy: y.at(marks.mean[k]), r: marks.step.length <= 25 ? 2.6 : 1.4}));
      });
    }
    if (cut !== null && Math.abs(last(curve.mean)) > cut) {
      const text = 'to ' + withMinus(significant(last(curve.mean), 2)) + ', beyond the axis';
      root.append(svg('text', {x: frame.right, y: frame.top + 8, 'text-anchor': 'end'}, text));
    }
    root.append(inside);
    return element(
      'figure', {class: 'panel', title: study.settings[i].name},
      element('figcaption', {}, element('span', {class: 'soft'}, (i + 1) + '  '), study.settings[i].name), root);
  });
}

// ---- loads --------------------------------------------------------------------------------------------------------

const levelLetters = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
// White: no assignment; then darker with the load: light grey at the even share, black at eight times it.
const greyOf = (letter) => {
  const level = levelLetters.indexOf(letter);
  return level <= 0 ? 255 : Math.round(level <= 31 ? 240 - 90 * (level - 1) / 30 : 150 - 150 * (level - 31) / 30);
};
const multipleOf = (letter) => letter === '0' ? 0 : 2 ** ((levelLetters.indexOf(letter) - 1) / 10 - 3);

// One pixel a step and expert, stretched by the style sheet; a panel a layer.
function loadPanels(load, name, tell) {
  const {step, layers, experts, levels} = load, columns = step.length;
  return Array.from({length: layers}, (unused, layer) => {
    const canvas = element('canvas', {
      width: columns,
      height: experts,
      role: 'img',
      'aria-label': 'load of the ' + experts + ' experts of layer ' + layer + ' over time, ' + name
    });
    canvas.style.height = experts * (experts <= 16 ? 8 : experts <= 64 ? 2 : 1) + 'px';
    const context = canvas.getContext('2d'), image = context.createImageData(columns, experts);
    const at = (expert, column) => levels[(layer * experts + expert) * columns + column];
    for (let expert = 0; expert < experts; ++expert) {
      for (let column = 0; column < columns; ++column) {
        const grey = greyOf(at(expert, column));
        image.data.set([grey, grey, grey, 255], 4 * (expert * columns + column));
      }
    }
    context.putImageData(image, 0, 0);
    canvas.addEventListener('mousemove', (event) => {
      const box = canvas.getBoundingClientRect();
      const cell = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
      const column = cell((event.clientX - box.left) / box.width, columns),
            expert = cell((event.clientY - box.top) / box.height, experts);
      tell(
        'layer ' + layer + ', expert ' + expert + ', to step ' + whole(step[column]) + ': ' +
        significant(multipleOf(at(expert, column)), 2) + '× the even share');
    });
    canvas.addEventListener('mouseleave', () => tell(''));
    return element('figure', {class: 'load-time'}, element('figcaption', {}, 'layer ' + layer), canvas);
  });
}
