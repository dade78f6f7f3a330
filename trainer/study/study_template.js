'use strict';
// Draws the page from the JSON in #data. Text from the user's files only ever becomes a text node.
(function () {
  const study = JSON.parse(document.getElementById('data').textContent);
  const {settings, measures, facts} = study;
  const byId = (id) => document.getElementById(id);
  const leaveOut = (id) => { byId(id).hidden = true; };
  const measureOf = (key) => measures.find((one) => one.key === key);
  const hasResults = settings.some((setting) => setting.summary.quality);
  const state = {base: 0, balance: Object.keys(study.fronts)[0], log: null, seed: 0, load: null, order: 'file'};
  const longest_table = 500;

  const fixed = (value, digits) => isNumber(value) ? value.toFixed(digits) : '–';
  const signed = (value, digits) => isNumber(value) ? (value < 0 ? '−' : '+') + Math.abs(value).toFixed(digits) : '–';
  const valueText = (setting, key) => {
    const {n, mean: m, sd} = summaryOf(setting, key), {digits} = measureOf(key);
    return n ? fixed(m, digits) + (isNumber(sd) ? ' ± ' + fixed(sd, digits) : '') : '–';
  };
  const differenceTo = (key, i) => (study.differences[state.base][key] || [])[i] || null;
  const isClear = (difference) => difference && isNumber(difference[2]) &&
    (difference[1] - difference[2] > 0 || difference[1] + difference[2] < 0);
  const differenceText = (difference, digits) => !difference ? '–' : signed(difference[1], digits) +
    (isNumber(difference[2]) ? ' ± ' + fixed(difference[2], digits) : '') + (difference[3] ? '' : '†');
  const baseName = () => settings[state.base].name;

  let printing = false;
  // The width inside a card. Paper has its own, whatever the window was.
  function roomIn(card) {
    const style = getComputedStyle(card);
    return printing ? 760 : Math.max(260, Math.floor(card.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
  }

  function select(label, options, value, act) {
    const node = element('select', {'aria-label': label}, ...options.map(([key, text]) => element('option', {value: key}, text)));
    node.value = String(value);
    node.addEventListener('change', () => act(node.value));
    return element('label', {}, label, node);
  }

  function sectionHead(title, note, ...controls) {
    return element('div', {class: 'section-head'}, element('h2', {}, title), note ? element('span', {class: 'soft'}, note) : null,
      controls.length ? element('div', {class: 'controls'}, ...controls) : null);
  }

  function order() {
    const indices = settings.map((unused, i) => i);
    const value = (i) => summaryOf(settings[i], state.order).mean;
    if (state.order !== 'file') indices.sort((a, b) => (isNumber(value(a)) ? value(a) : Infinity) - (isNumber(value(b)) ? value(b) : Infinity));
    return indices;
  }

  // ---- what the study is --------------------------------------------------------------------------------------------

  const listed = (values) => {
    const numbers = values.every(isNumber), words = values.map(wordOf);
    if (values.length <= 20) return words.join(', ');
    return numbers ? whole(values.length) + ' values from ' + words[values.indexOf(Math.min(...values))] + ' to ' +
      words[values.indexOf(Math.max(...values))] : words.slice(0, 12).join(', ') + ' … ' + whole(values.length) + ' values';
  };
  const rangeText = (range, format) => range[0] === range[1] ? format(range[0]) : format(range[0]) + ' to ' + format(range[1]);
  const items = (text) => text === undefined || text === '[]' ? 0 : text.split('; ').length;

  function drawSummary() {
    const {standing} = study, config = facts.config;
    const left = ['running', 'stopped', 'left'].filter((one) => standing[one]).map((one) => standing[one] + ' ' + one);
    if (standing.failed) left.unshift(standing.failed + ' failed');
    const tiles = [['Points', standing.done + ' of ' + facts.points, ['done', ...left].join(', ')]];
    const seeds = Math.max(...settings.map(({runs}) => runs.length));
    tiles.push(['Settings', whole(settings.length), study.repeated ? 'up to ' + seeds + ' seeds each' : 'one run each']);
    if (facts.steps) tiles.push(['Steps', rangeText(facts.steps, whole), 'a run']);
    if (facts.tokens) tiles.push(['Tokens', rangeText(facts.tokens, short), 'a run']);
    if (facts.counts) tiles.push(['Parameters', short(facts.counts.total), short(facts.counts.active) + ' active for a token']);
    const layers = config['model.num_hidden_layers'], experts = config['model.num_local_experts'], chosen = config['model.num_experts_per_tok'];
    if (experts) tiles.push(['Experts', experts, [layers ? 'in each of ' + layers + ' layers' : '', chosen ? chosen + ' a token' : ''].filter(Boolean).join(', ')]);
    if (items(config['data.train'])) tiles.push(['Data', items(config['data.train']) + (items(config['data.train']) > 1 ? ' sources' : ' source'),
      study.sources.length ? study.sources.length + ' evaluated' : 'not evaluated']);
    byId('what').textContent = facts.directory;
    const rows = facts.parameters.map(({key, values}) => element('tr', {}, element('th', {}, element('code', {}, key)), element('td', {},
      listed(values), key === 'train.seed' && study.repeated ? element('span', {class: 'soft'}, ' (repetitions: points that differ in it alone are one setting)') : null)));
    byId('summary').replaceChildren(
      element('dl', {class: 'tiles'}, ...tiles.map(([label, value, note]) => element('div', {class: 'tile'},
        element('dt', {}, label), element('dd', {}, String(value)), element('dd', {}, note)))),
      rows.length ? element('div', {class: 'card facts'}, element('h3', {}, 'What varies'), element('table', {class: 'small'}, element('tbody', {}, ...rows))) : '',
      hasResults ? '' : element('p', {class: 'notice'}, 'No point is done yet: figures and tables come with the first.'));
  }

  // ---- quality against balance ---------------------------------------------------------------------------------------

  function markKey(name, text) {
    const box = svg('svg', {width: 14, height: 14, 'aria-hidden': 'true'});
    box.append(name === 'seed' ? svg('g', {class: 'seeds'}, svg('circle', {cx: 7, cy: 7, r: 2}))
      : name === 'base' ? svg('rect', {class: 'mark', x: 2.5, y: 2.5, width: 9, height: 9})
      : name === 'line' ? svg('path', {class: 'front-line', d: 'M0 7H14'})
      : name === 'spread' ? svg('g', {class: 'spread'}, svg('line', {x1: 1, x2: 13, y1: 7, y2: 7}), svg('line', {x1: 7, x2: 7, y1: 1, y2: 13}))
      : svg('circle', {class: name === 'member' ? 'mark member' : 'mark', cx: 7, cy: 7, r: 4.5}));
    return element('span', {}, box, text);
  }

  function drawFront() {
    if (!hasResults || !state.balance) return leaveOut('front');
    const section = byId('front'), card = element('div', {class: 'card'});
    const means = settings.map((setting) => summaryOf(setting, state.balance).mean).filter(isNumber);
    const log = state.log === null ? wantsLog(means) : state.log;
    const box = element('input', {type: 'checkbox'});
    box.checked = log;
    box.addEventListener('change', () => { state.log = box.checked; drawFront(); });
    section.replaceChildren(sectionHead('Quality against balance', 'lower left is better',
      select('balance', Object.keys(study.fronts).map((key) => [key, measureOf(key).title]), state.balance,
        (key) => { state.balance = key; state.log = null; drawFront(); }),
      element('label', {}, box, 'log scale')), card);
    const {node, front, numbered} = frontFigure(study, {width: roomIn(card), balance: state.balance, log, base: state.base});
    const keys = [markKey('member', 'mean, on the Pareto front'), markKey('', 'mean, off it'), markKey('base', 'base: ' + baseName())];
    if (study.repeated) keys.push(markKey('seed', 'a seed'), markKey('spread', 'standard deviation over seeds, both ways'));
    keys.push(markKey('line', 'what the front reaches'));
    const {title, unit} = measureOf(state.balance), quality = measures[0];
    card.append(element('figure', {class: 'figure'}, node, element('figcaption', {}, element('span', {class: 'marks-key'}, ...keys), element('br'),
      quality.title + ': ' + quality.unit + '. ' + title + ': ' + unit + '.')));
    if (numbered && settings.length <= 40) card.append(element('ul', {class: 'key'}, ...settings.map((setting, i) =>
      element('li', {}, element('b', {}, String(i + 1)), setting.name))));
    card.append(element('p', {class: 'small'}, element('b', {}, 'On the front of means'), ', from the best balance to the best quality:'),
      element('ol', {class: 'front-list small'}, ...front.map(({i, name}) => element('li', {}, element('b', {}, name), ': ' + quality.title.toLowerCase() + ' ' +
        valueText(settings[i], 'quality') + ', ' + title + ' ' + valueText(settings[i], state.balance)))));
  }

  // ---- tables ---------------------------------------------------------------------------------------------------------

  function forestCell(key, i, reach) {
    const difference = differenceTo(key, i), cell = element('td', {class: 'forest'});
    const width = 150, tall = 22, x = scaleOf([-reach, reach], 4, width - 4, {pad: 0.02});
    const root = canvasOf(width, tall, 'interval of the difference');
    root.append(svg('line', {class: 'zero', x1: x.at(0), x2: x.at(0), y1: 0, y2: tall}));
    const end = (value) => Math.max(1, Math.min(width - 1, x.at(value)));
    if (difference && i !== state.base) {
      const [, m, half] = difference;
      if (isNumber(half)) root.append(svg('line', {class: 'whisker', x1: end(m - half), x2: end(m + half), y1: tall / 2, y2: tall / 2}));
      root.append(svg('circle', {class: isClear(difference) ? 'mark member' : 'mark', cx: end(m), cy: tall / 2, r: 3.5}));
    }
    cell.append(root);
    return cell;
  }

  function nameCells(i) {
    return [element('td', {class: 'number soft'}, String(i + 1)), element('th', {class: 'name', scope: 'row'}, settings[i].name)];
  }

  function drawSettings() {
    if (!hasResults) return leaveOut('settings');
    const quality = measures[0], front = new Set(state.balance ? study.fronts[state.balance] : []);
    const repeated = settings.some((setting) => isNumber(summaryOf(setting, 'quality').half));
    const columns = ['max_vio', 'idle_experts', 'dropped', 'tokens_per_sec'].filter(measureOf);
    const indices = order(), shown = indices.slice(0, longest_table);
    const best = Math.min(...settings.map((setting) => summaryOf(setting, 'quality').mean).filter(isNumber));
    const reach = Math.max(1e-9, ...settings.flatMap((unused, i) => {
      const difference = i === state.base ? null : differenceTo('quality', i);
      return difference ? [Math.abs(difference[1]) + (isNumber(difference[2]) ? Math.min(difference[2], 2 * Math.abs(difference[1]) + 0.02) : 0)] : [];
    }));
    const number = (text) => element('th', {class: 'number', scope: 'col'}, text);
    const head = element('tr', {}, number('#'), element('th', {class: 'name', scope: 'col'}, 'Setting'), number('n'),
      number(quality.title + (repeated ? ' ± sd' : '')), ...(repeated ? [number('95% interval')] : []), number('Difference to the base'), element('th', {}, ''),
      ...columns.map((key) => number(measureOf(key).title + (repeated && key.startsWith('max_vio') ? ' ± sd' : ''))), number('Front'));
    const body = shown.map((i) => {
      const setting = settings[i], summary = summaryOf(setting, 'quality'), difference = differenceTo('quality', i);
      const cell = (text, name) => element('td', {class: 'number ' + (name || '')}, text);
      return element('tr', {class: i === state.base ? 'base' : ''}, ...nameCells(i), cell(String(summary.n) + (summary.n < setting.runs.length ? ' of ' + setting.runs.length : '')),
        cell(valueText(setting, 'quality'), summary.mean === best ? 'best' : ''),
        ...(repeated ? [cell(isNumber(summary.half) ? fixed(summary.mean - summary.half, quality.digits) + ' to ' + fixed(summary.mean + summary.half, quality.digits) : '–')] : []),
        i === state.base ? cell('the base') : element('td', {class: isClear(difference) ? 'number clear' : 'number'}, differenceText(difference, quality.digits),
          difference && isNumber(difference[2]) && !isClear(difference) ? element('span', {class: 'soft'}, ' within noise') : null),
        forestCell('quality', i, reach), ...columns.map((key) => cell(key === 'tokens_per_sec' ? fixed(summaryOf(setting, key).mean, 0) : valueText(setting, key))),
        cell(front.has(i) ? '●' : ''));
    });
    const controls = [select('order', [['file', 'of the file'], ['quality', 'by loss'], ...(state.balance ? [[state.balance, 'by ' + measureOf(state.balance).title]] : [])], state.order,
      (key) => { state.order = key; drawSettings(); drawSources(); })];
    if (study.differences.length > 1) controls.unshift(select('base', settings.map((setting, i) => [i, setting.name]), state.base,
      (i) => { state.base = Number(i); drawAll(); }));
    byId('settings').replaceChildren(sectionHead('Settings', 'base: ' + baseName(), ...controls),
      element('div', {class: 'card scroll long'}, element('table', {class: 'wide settings small'}, element('thead', {}, head), element('tbody', {}, ...body))),
      ...(shown.length < indices.length ? [element('p', {class: 'notice'}, 'The first ' + shown.length + ' of ' + indices.length + '; results.csv has all.')] : []),
      notes());
  }

  function notes() {
    const first = study.differences[state.base].quality, unpaired = new Map();
    first.forEach((difference, i) => {
      if (!difference || !difference[4] || i === state.base) return;
      unpaired.set(difference[4], [...(unpaired.get(difference[4]) || []), settings[i].name]);
    });
    const quality = measures[0], lines = [quality.title + ': ' + quality.unit + '. The tail is the rows of the last tenth of the steps.'];
    if (study.repeated) {
      lines.push('± sd: standard deviation over seeds (n − 1). Intervals: 95%, Student’s t with the n of the row; none with n = 1.');
      lines.push('Differences: setting minus ' + (state.base === 0 ? 'the base, the first setting of the file' : 'the base chosen') +
        '; same seed against same seed, ± half of the 95% interval of their mean. Bold and filled: the interval leaves 0 out; else within noise.');
      const count = settings.length - 1;
      if (count > 1) lines.push('With ' + count + ' differences at 95% each, some leave 0 out by chance alone: one in twenty where nothing differs.');
    } else {
      lines.push('One run a setting: no spread can be told, and a difference may be noise of the seed. Let train.seed vary to know.');
    }
    for (const [reason, names] of unpaired) lines.push('† Unpaired (Welch), ' + reason + ': ' + (names.length > 8 ? names.slice(0, 8).join(', ') + ' and ' + (names.length - 8) + ' more' : names.join(', ')) + '.');
    const units = ['max_vio', 'idle_experts', 'dropped', 'tokens_per_sec'].filter(measureOf).map((key) => measureOf(key).title + ': ' + measureOf(key).unit);
    lines.push(units.join('. ') + '.');
    return element('ul', {class: 'notes'}, ...lines.map((line) => element('li', {}, line)));
  }

  function drawSources() {
    const sources = study.sources;
    if (!hasResults || sources.length < 2) return leaveOut('sources');
    const shown = order().slice(0, longest_table);
    const lossOf = (i, source) => valueText(settings[i], 'eval.' + source);
    const head = element('tr', {}, element('th', {class: 'number'}, '#'), element('th', {class: 'name'}, 'Setting'), ...sources.map((source) => element('th', {class: 'number', scope: 'col'}, source)));
    const body = shown.map((i) => element('tr', {class: i === state.base ? 'base' : ''}, ...nameCells(i), ...sources.map((source) => {
      if (i === state.base) {
        const [text, sd] = lossOf(i, source).split(' ± ');
        return element('td', {class: 'number'}, text, sd ? element('span', {class: 'half'}, 'sd ' + sd) : null);
      }
      const difference = differenceTo('eval.' + source, i);
      const [text, half] = differenceText(difference, measures[0].digits).split(' ± ');
      return element('td', {class: isClear(difference) ? 'number clear' : 'number', title: lossOf(i, source)}, text,
        half ? element('span', {class: 'half'}, '± ' + half) : null);
    })));
    const parts = [sectionHead('By domain', 'held-out loss minus the base’s' + (study.repeated ? ', same seed against same seed, ± half of the 95% interval' : '') +
      '; the base’s row: its loss'), element('div', {class: 'card scroll long'}, element('table', {class: 'wide settings small'}, element('thead', {}, head), element('tbody', {}, ...body)))];
    if (settings.length > 1 && settings.length <= 24) {
      const others = order().filter((i) => i !== state.base);
      const found = sources.flatMap((source) => others.map((i) => differenceTo('eval.' + source, i)).filter(Boolean));
      const reach = Math.max(1e-9, ...found.map(([, m]) => 1.5 * Math.abs(m)), 1.2 * (median(found.map(([, , half]) => half)) || 0));
      parts.push(element('div', {class: 'grid'}, ...sources.map((source) => element('figure', {class: 'figure card'}, element('h3', {}, source),
        forestFigure(study, {width: 360, label: 'differences of held-out loss to ' + baseName() + ', ' + source, scale: [-reach, reach],
          rows: others.map((i) => ({name: settings[i].name, difference: differenceTo('eval.' + source, i)}))})))));
    }
    byId('sources').replaceChildren(...parts);
  }

  function drawMeasures() {
    const shown = measures.filter(({key}) => key !== 'quality' && !key.startsWith('eval.'));
    if (!hasResults || !shown.length) return leaveOut('measures');
    const head = element('tr', {}, element('th', {class: 'number'}, '#'), element('th', {class: 'name'}, 'Setting'), ...shown.map(({title, unit}) => element('th', {class: 'number', scope: 'col', title: unit}, title)));
    const body = settings.slice(0, longest_table).map((setting, i) => element('tr', {}, ...nameCells(i), ...shown.map(({key}) => element('td', {class: 'number'}, valueText(setting, key)))));
    byId('measures').replaceChildren(element('details', {class: 'card scroll long'}, element('summary', {}, 'All measures by setting' + (study.repeated ? ', mean ± standard deviation' : '')),
      element('table', {class: 'wide settings small measures-all'}, element('thead', {}, head), element('tbody', {}, ...body)),
      element('ul', {class: 'notes'}, ...shown.map(({title, unit}) => element('li', {}, title + ': ' + unit)))));
  }

  // ---- figures by parameter, over time ---------------------------------------------------------------------------------

  function drawParameters() {
    const varying = facts.parameters.filter(({key, values}) => values.length > 1 && key !== 'train.seed');
    const shown = varying.map(({key, values}) => ({key, values, numeric: values.every(isNumber), alone: varying.length === 1}))
      .filter(({values, numeric, alone}) => numeric ? values.length > 1 : !alone && values.length <= 10 && values.every((value) => textWidth(wordOf(value)) < 120));
    if (!hasResults || !shown.length) return leaveOut('parameters');
    const keys = ['quality', ...(state.balance ? [state.balance] : [])];
    byId('parameters').replaceChildren(sectionHead('By parameter', 'each mark a setting' + (study.repeated ? ', its mean and standard deviation over seeds' : '') + '; filled: the base'),
      element('div', {class: 'grid'}, ...shown.flatMap((parameter) => keys.map((key) => element('figure', {class: 'figure card'}, parameterFigure(study, {width: 420, parameter, key, base: state.base}))))));
  }

  function drawCurves() {
    const shown = settings.map((unused, i) => i).slice(0, study.curves.length);
    const held = study.sources.length ? '; circles: held out, mean of the sources' : '';
    const groups = [['loss', 'Loss', 'nats a token' + held + '; dashed: training of ' + baseName()],
      ['difference', 'Loss minus the base’s', 'same seed against same seed, ' + baseName() + ' being 0' + held],
      ['max_vio', 'MaxVio', 'worst layer; dashed: ' + baseName()]]
      .map(([group, title, unit]) => ({title, unit, panels: curveFigures(study, {group, base: state.base, shown})})).filter(({panels}) => panels);
    if (!groups.length) return leaveOut('curves');
    byId('curves').replaceChildren(sectionHead('Curves by setting', 'over steps; line: training, mean of what was logged' + (study.repeated ? '; band: lowest to highest seed' : '') +
      '; losses from a tenth of the steps on' + (shown.length < settings.length ? '; the first ' + shown.length + ' settings' : '')),
      element('div', {class: 'card long'}, ...groups.flatMap(({title, unit, panels}) => [
        element('h3', {class: 'multiples-head'}, title + ' ', element('span', {class: 'soft'}, unit)), element('div', {class: 'multiples'}, ...panels)])));
  }

  function drawLoads() {
    const {loads} = study;
    if (!loads.length) return leaveOut('loads');
    const runs = [...new Set(loads.map(({run}) => run))];
    const few = [...new Set(loads.map(({setting}) => setting))].length * loads[0].layers <= 160;
    if (state.load === null) state.load = few ? 'all' : String(loads[0].setting);
    const shown = loads.filter(({setting, run}) => run === state.seed && (state.load === 'all' || setting === Number(state.load)));
    const controls = [];
    const named = [...new Set(loads.map(({setting}) => setting))].map((i) => [i, settings[i].name]);
    if (named.length > 1) controls.push(select('setting', [...(few ? [['all', 'all']] : []), ...named], state.load, (value) => { state.load = value; drawLoads(); }));
    const seedText = (run) => (settings.map((setting) => setting.runs[run]).find(Boolean) || {}).seed || String(run + 1);
    if (runs.length > 1) controls.push(select('seed', runs.map((run) => [run, seedText(run)]), state.seed, (value) => { state.seed = Number(value); drawLoads(); }));
    const scale = element('span', {class: 'grey-scale'}, 'none, ⅛×', element('i'), '8× the even share, which is the middle');
    const readout = element('p', {class: 'load-part'}, '');
    const quiet = 'A panel a layer, a row an expert, steps from left to right' + (study.repeated ? '; seed ' + seedText(state.seed) : '') + '.';
    const tell = (text) => { readout.textContent = text || quiet; };
    tell('');
    byId('loads').replaceChildren(sectionHead('Load by layer and expert', '', ...controls), element('div', {class: 'card long'}, scale, readout,
      ...shown.map((load) => element('div', {class: 'load-block'}, element('h3', {}, (load.setting + 1) + ' ' + settings[load.setting].name),
        element('div', {class: 'load-times'}, ...loadPanels(load, settings[load.setting].name, tell))))));
  }

  // ---- the rest ---------------------------------------------------------------------------------------------------------

  function drawFailed() {
    const failed = settings.flatMap(({runs}) => runs.filter(({standing}) => standing === 'failed'));
    if (!failed.length) return leaveOut('failed');
    byId('failed').replaceChildren(sectionHead('Points that failed', failed.length + '; smoe sweep --retry-failed runs them again'),
      ...failed.slice(0, longest_table).map(({point, error}) => element('div', {class: 'card'}, element('h3', {}, point), element('pre', {class: 'error'}, error || 'no error was recorded'))));
  }

  const shell = (text) => /^[\w.\/=+,:-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";

  function drawReproduce() {
    const directory = facts.directory.replace(/\/$/, '');
    const overrides = settings.slice(0, longest_table).map(({overrides: list}, i) => element('tr', {}, ...nameCells(i),
      element('td', {}, element('code', {}, list.length ? list.map(([key, value]) => shell(key + '=' + value)).join(' ') : 'the base as it is'))));
    const seed = study.repeated ? ' train.seed=' + (settings[0].runs[0].seed || '1') : '';
    byId('reproduce').replaceChildren(sectionHead('How to reproduce it', 'from the directory where the sweep was started'), element('div', {class: 'card long'},
      element('p', {class: 'small'}, 'All points, or those that are left:'), element('pre', {}, 'smoe sweep ' + shell(directory + '/sweep.yaml')),
      element('p', {class: 'small'}, 'One run of a setting, by what it changes in the base:'),
      element('pre', {}, 'smoe train ' + shell(directory + '/base.yaml') + ' KEY=VALUE...' + seed + ' train.output_dir=runs/again'),
      element('details', {}, element('summary', {class: 'small'}, 'What each setting changes'),
        element('div', {class: 'scroll'}, element('table', {class: 'wide small'}, element('tbody', {}, ...overrides)))),
      element('p', {class: 'small soft'}, 'results.jsonl and results.csv beside this page have every point’s values, and the hashes of its initial weights and of its data.')));
  }

  function drawAll() {
    drawSummary();
    drawFront();
    drawSettings();
    drawSources();
    drawParameters();
    drawCurves();
    drawLoads();
    drawMeasures();
    drawFailed();
    drawReproduce();
  }

  let width = innerWidth;
  addEventListener('resize', () => {
    if (printing || innerWidth === width) return;  // a phone's bars come and go
    width = innerWidth;
    drawFront();
  });
  const print = (starts) => {
    printing = starts;
    if (starts) document.querySelectorAll('details').forEach((one) => { one.open = true; });
    drawFront();
  };
  addEventListener('beforeprint', () => print(true));
  addEventListener('afterprint', () => print(false));
  drawAll();
  document.documentElement.dataset.ready = 'true';
})();
