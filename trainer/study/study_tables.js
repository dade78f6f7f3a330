'use strict';
// The tables of a study's report: settings, sources, all measures.

// How far from 0 a forest goes: to all means but a few far ones, and to the ends of most intervals; the rest is cut at
// its edge.
function reachOf(differences, forests = 1) {
  const found = differences.filter(Boolean);
  const usual = median(found.map(([, , half]) => half)) || 0, means = found.map(([, m]) => Math.abs(m));
  const cut = cutOf([...Array(forests).fill(0), ...means]);
  return Math.max(1e-9, 1.2 * usual, ...(cut === null ? means.map((m) => 1.3 * m) : [cut]));
}

const intervalText = ({mean: m, half}, digits) =>
  isNumber(half) ? fixed(m - half, digits) + ' to ' + fixed(m + half, digits) : '–';

function forestCell(key, i, reach) {
  const difference = differenceTo(key, i), cell = element('td', {class: 'forest'});
  const width = 120, tall = 22, x = scaleOf([-reach, reach], 4, width - 4, {pad: 0.02});
  const root = canvasOf(width, tall, 'interval of the difference');
  root.append(svg('line', {class: 'zero', x1: x.at(0), x2: x.at(0), y1: 0, y2: tall}));
  if (difference && i !== state.base)
    root.append(...differenceMarks(difference, x, tall / 2, {left: 1, right: width - 1}));
  cell.append(root);
  return cell;
}

// Where several parameters make a setting, each has a column; one that has more of them than a table bears, a name.
const keys = settings.length ? settings[0].parameters.map(([key]) => key) : [];
const byKey = keys.length > 1 && keys.length <= 6;

function nameCells(i) {
  const names = byKey ? settings[i].parameters.map(
                          ([, value]) => element(
                            'th', {class: 'name value', scope: 'row', title: wordOf(value)},
                            isNumber(value) ? significant(value, 4) : wordOf(value)))
                      : [element('th', {class: 'name', scope: 'row'}, settings[i].name)];
  return [element('td', {class: 'number soft'}, String(i + 1)), ...names];
}

// A long table scrolls inside its card, its head in sight; not on paper.
const cardFor = (rows) => rows.length > 40 ? 'card scroll long tall' : 'card scroll long';

function nameHeads() {
  const names = byKey
    ? keys.map((key) => element('th', {class: 'name value', scope: 'col', title: key}, key.split('.').pop()))
    : [element('th', {class: 'name', scope: 'col'}, 'Setting')];
  return [element('th', {class: 'number', scope: 'col'}, '#'), ...names];
}

// What a difference's number does not say.
function remarkOn(difference, n) {
  const remarks = (...texts) => element('span', {class: 'half'}, texts.filter(Boolean).join(', '));
  if (!difference) return null;
  const pairs = difference[0] + (difference[0] === 1 ? ' pair' : ' pairs');
  const fewer = difference[3] && difference[0] < n, hasInterval = isNumber(difference[2]);
  if (!hasInterval) return study.repeated ? remarks(difference[3] && pairs, 'no interval') : null;
  return fewer || !isClear(difference) ? remarks(fewer && pairs, isClear(difference) ? '' : 'within noise') : null;
}

function drawSettings() {
  if (!hasResults) return leaveOut('settings');
  const quality = measures[0], front = new Set(state.balance ? study.fronts[state.balance] : []);
  const repeated = settings.some((setting) => isNumber(summaryOf(setting, 'quality').half));
  const columns = ['max_vio', 'idle_experts', 'dropped', 'tokens_per_sec'].filter(measureOf);
  const indices = order(), shown = indices.slice(0, longestTable);
  const best = Math.min(...settings.map((setting) => summaryOf(setting, 'quality').mean).filter(isNumber));
  const reach = reachOf(settings.map((unused, i) => i === state.base ? null : differenceTo('quality', i)));
  const number = (text) => element('th', {class: 'number', scope: 'col'}, text);
  const head = element(
    'tr', {}, ...nameHeads(), number('n'), number(quality.title + (repeated ? ' ± sd' : '')),
    ...(repeated ? [number('95% interval')] : []), number('Difference to the base'), element('th', {}, ''),
    ...columns.map((key) => number(measureOf(key).title + (repeated && key.startsWith('max_vio') ? ' ± sd' : ''))),
    number('Front'));
  const body = shown.map((i) => {
    const setting = settings[i], summary = summaryOf(setting, 'quality'), difference = differenceTo('quality', i);
    const cell = (text, name) => element('td', {class: 'number ' + (name || '')}, text);
    return element(
      'tr', {class: i === state.base ? 'base' : ''}, ...nameCells(i),
      cell(String(summary.n) + (summary.n < setting.runs.length ? ' of ' + setting.runs.length : '')),
      cell(valueText(setting, 'quality'), summary.mean === best ? 'best' : ''),
      ...(repeated ? [cell(intervalText(summary, quality.digits))] : []),
      i === state.base ? cell('the base')
                       : element(
                           'td', {class: isClear(difference) ? 'number clear' : 'number'},
                           differenceText(difference, quality.digits), remarkOn(difference, summary.n)),
      forestCell('quality', i, reach),
      ...columns.map(
        (key) => cell(key === 'tokens_per_sec' ? fixed(summaryOf(setting, key).mean, 0) : valueText(setting, key))),
      cell(front.has(i) ? '●' : ''));
  });
  const controls = [select(
    'order',
    [
      ['file', 'of the file'], ['quality', 'by loss'],
      ...(state.balance ? [[state.balance, 'by ' + measureOf(state.balance).title]] : [])
    ],
    state.order, (key) => {
      state.order = key;
      drawSettings();
      drawSources();
    })];
  if (study.differences.length > 1)
    controls.unshift(select('base', settings.map((setting, i) => [i, setting.name]), state.base, (i) => {
      state.base = Number(i);
      drawAll();
    }));
  byId('settings')
    .replaceChildren(
      sectionHead('Settings', 'base: ' + baseName(), ...controls),
      element(
        'div', {class: cardFor(body)},
        element('table', {class: 'wide settings small'}, element('thead', {}, head), element('tbody', {}, ...body))),
      ...(
        shown.length < indices.length
          ? [element(
              'p', {class: 'notice'}, 'The first ' + shown.length + ' of ' + indices.length + '; results.csv has all.')]
          : []),
      notes());
}

function notes() {
  const first = study.differences[state.base].quality, unpaired = new Map();
  first.forEach((difference, i) => {
    if (!difference || !difference[4] || i === state.base) return;
    unpaired.set(difference[4], [...(unpaired.get(difference[4]) || []), settings[i].name]);
  });
  const quality = measures[0],
        lines = [quality.title + ': ' + quality.unit + '. The tail is the rows of the last tenth of the steps.'];
  if (study.repeated) {
    lines.push('± sd: standard deviation over seeds (n − 1). Intervals: 95%, by Student’s t; one seed has none.');
    lines.push(
      'Differences: setting minus ' +
      (state.base === 0 ? 'the base, the first setting of the file' : 'the base chosen') +
      '; same seed against same seed, ± half of the 95% interval of their mean. ' +
      'Bold and filled: the interval leaves 0 out; else within noise.');
    const count = settings.length - 1;
    if (count > 1)
      lines.push(
        'With ' + count +
        ' differences at 95% each, some leave 0 out by chance alone: one in twenty where nothing differs.');
  } else {
    lines.push(
      'One run a setting: no spread can be told, and a difference may be noise of the seed. ' +
      'Let train.seed vary to know.');
  }
  const counts = settings.map((setting) => summaryOf(setting, 'quality').n), most = Math.max(...counts);
  if (study.repeated && counts.some((n) => n < most))
    lines.push(
      'Not every setting has all its seeds: a mean over other seeds differs by them too, here and in the figure ' +
      'above. The paired differences do not.');
  for (const [reason, names] of unpaired)
    lines.push(
      '† Unpaired (Welch), ' + reason + ': ' +
      (names.length > 8 ? names.slice(0, 8).join(', ') + ' and ' + (names.length - 8) + ' more' : names.join(', ')) +
      '.');
  const units = ['max_vio', 'idle_experts', 'dropped', 'tokens_per_sec'].filter(measureOf).map(
    (key) => measureOf(key).title + ': ' + measureOf(key).unit);
  lines.push(units.join('. ') + '.');
  return element('ul', {class: 'notes'}, ...lines.map((line) => element('li', {}, line)));
}

function drawSources() {
  const sources = study.sources;
  if (!hasResults || sources.length < 2) return leaveOut('sources');
  const shown = order().slice(0, longestTable);
  const lossOf = (i, source) => valueText(settings[i], 'eval.' + source);
  const head = element(
    'tr', {}, ...nameHeads(), ...sources.map((source) => element('th', {class: 'number', scope: 'col'}, source)));
  const body = shown.map(
    (i) => element('tr', {class: i === state.base ? 'base' : ''}, ...nameCells(i), ...sources.map((source) => {
      if (i === state.base) {
        const [text, sd] = lossOf(i, source).split(' ± ');
        return element('td', {class: 'number'}, text, sd ? element('span', {class: 'half'}, 'sd ' + sd) : null);
      }
      const difference = differenceTo('eval.' + source, i);
      const [text, half] = differenceText(difference, measures[0].digits).split(' ± ');
      return element(
        'td', {class: isClear(difference) ? 'number clear' : 'number', title: lossOf(i, source)}, text,
        half ? element('span', {class: 'half'}, '± ' + half) : null);
    })));
  const parts = [
    sectionHead(
      'By domain',
      'held-out loss minus the base’s' +
        (study.repeated ? ', same seed against same seed, ± half of the 95% interval' : '') +
        '; the base’s row: its loss'),
    element(
      'div', {class: cardFor(body)},
      element('table', {class: 'wide settings small'}, element('thead', {}, head), element('tbody', {}, ...body)))
  ];
  const others = order().filter((i) => i !== state.base && differenceTo('quality', i));
  if (others.length && settings.length <= 24) {
    const reach = reachOf(sources.flatMap((source) => others.map((i) => differenceTo('eval.' + source, i))),
      sources.length);
    parts.push(element(
      'div', {class: 'grid'},
      ...sources.map(
        (source) =>
          element('figure', {class: 'figure card'}, element('h3', {}, source), forestFigure(study, {
                    width: 360,
                    label: 'differences of held-out loss to ' + baseName() + ', ' + source,
                    scale: [-reach, reach],
                    rows: others.map((i) => ({name: settings[i].name, difference: differenceTo('eval.' + source, i)}))
                  })))));
  }
  byId('sources').replaceChildren(...parts);
}

function drawMeasures() {
  const shown = measures.filter(({key}) => key !== 'quality' && !key.startsWith('eval.'));
  if (!hasResults || !shown.length) return leaveOut('measures');
  const head = element(
    'tr', {}, ...nameHeads(),
    ...shown.map(({title, unit}) => element('th', {class: 'number', scope: 'col', title: unit}, title)));
  const body = settings.slice(0, longestTable)
                 .map(
                   (setting, i) => element(
                     'tr', {}, ...nameCells(i),
                     ...shown.map(({key}) => element('td', {class: 'number'}, valueText(setting, key)))));
  byId('measures')
    .replaceChildren(element(
      'details', {class: cardFor(body)},
      element('summary', {}, 'All measures by setting' + (study.repeated ? ', mean ± standard deviation' : '')),
      element(
        'table', {class: 'wide settings small measures-all'}, element('thead', {}, head),
        element('tbody', {}, ...body)),
      element('ul', {class: 'notes'}, ...shown.map(({title, unit}) => element('li', {}, title + ': ' + unit)))));
}
