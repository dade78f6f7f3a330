'use strict';
// Draws the page, section by section. Text from the user's files only ever becomes a text node.

// ---- what the study is --------------------------------------------------------------------------------------------

const listed = (values) => {
  const numbers = values.every(isNumber), words = values.map(wordOf);
  if (values.length <= 20) return words.join(', ');
  return numbers ? whole(values.length) + ' values from ' + words[values.indexOf(Math.min(...values))] + ' to ' +
      words[values.indexOf(Math.max(...values))]
                 : words.slice(0, 12).join(', ') + ' … ' + whole(values.length) + ' values';
};
const rangeText = (range, format) =>
  range[0] === range[1] ? format(range[0]) : format(range[0]) + ' to ' + format(range[1]);
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
  if (facts.counts)
    tiles.push(['Parameters', short(facts.counts.total), short(facts.counts.active) + ' active for a token']);
  const layers = config['model.num_hidden_layers'], experts = config['model.num_local_experts'],
        chosen = config['model.num_experts_per_tok'];
  if (experts)
    tiles.push([
      'Experts', experts,
      [layers ? 'in each of ' + layers + ' layers' : '', chosen ? chosen + ' a token' : ''].filter(Boolean).join(', ')
    ]);
  if (items(config['data.train']))
    tiles.push([
      'Data', items(config['data.train']) + (items(config['data.train']) > 1 ? ' sources' : ' source'),
      study.sources.length ? study.sources.length + ' evaluated' : 'not evaluated'
    ]);
  byId('what').textContent = facts.directory;
  const rows = facts.parameters.map(
    ({key, values}) => element(
      'tr', {}, element('th', {}, element('code', {}, key)),
      element(
        'td', {}, listed(values),
        key === 'train.seed' && study.repeated
          ? element('span', {class: 'soft'}, ' (repetitions: points that differ in it alone are one setting)')
          : null)));
  byId('summary').replaceChildren(
    element(
      'dl', {class: 'tiles'},
      ...tiles.map(
        ([label, value, note]) => element(
          'div', {class: 'tile'}, element('dt', {}, label), element('dd', {}, String(value)),
          element('dd', {}, note)))),
    rows.length ? element(
                    'div', {class: 'card facts'}, element('h3', {}, 'Parameters'),
                    element('table', {class: 'small'}, element('tbody', {}, ...rows)))
                : '',
    hasResults ? '' : element('p', {class: 'notice'}, 'No point is done yet: figures and tables come with the first.'));
}

// ---- quality against balance ---------------------------------------------------------------------------------------

function markKey(name, text) {
  const box = svg('svg', {width: 14, height: 14, 'aria-hidden': 'true'});
  box.append(
    name === 'seed'       ? svg('g', {class: 'seeds'}, svg('circle', {cx: 7, cy: 7, r: 2}))
      : name === 'base'   ? svg('rect', {class: 'mark', x: 2.5, y: 2.5, width: 9, height: 9})
      : name === 'line'   ? svg('path', {class: 'front-line', d: 'M0 7H14'})
      : name === 'spread' ? svg(
                              'g', {class: 'spread'}, svg('line', {x1: 1, x2: 13, y1: 7, y2: 7}),
                              svg('line', {x1: 7, x2: 7, y1: 1, y2: 13}))
                          : svg('circle', {class: name === 'member' ? 'mark member' : 'mark', cx: 7, cy: 7, r: 4.5}));
  return element('span', {}, box, text);
}

// Only where something is far from the rest.
function cutControl() {
  if (cutOf(settings.map((setting) => summaryOf(setting, 'quality').mean)) === null) return [];
  const box = element('input', {type: 'checkbox'});
  box.checked = state.cut;
  box.addEventListener('change', () => {
    state.cut = box.checked;
    drawFront();
  });
  return [element('label', {}, box, 'cut what is far')];
}

function drawFront() {
  if (!hasResults || !state.balance) return leaveOut('front');
  const section = byId('front'), card = element('div', {class: 'card'});
  const means = settings.map((setting) => summaryOf(setting, state.balance).mean).filter(isNumber);
  const log = state.log === null ? wantsLog(means) : state.log;
  const box = element('input', {type: 'checkbox'});
  box.checked = log;
  box.addEventListener('change', () => {
    state.log = box.checked;
    drawFront();
  });
  section.replaceChildren(
    sectionHead(
      'Quality against balance', 'lower left is better',
      select(
        'balance', Object.keys(study.fronts).map((key) => [key, measureOf(key).title]), state.balance,
        (key) => {
          if (state.order === state.balance) state.order = key;
          state.balance = key;
          state.log = null;
          drawFront();
          drawSettings();
          drawSources();
          drawParameters();
        }),
      element('label', {}, box, 'log scale'), ...cutControl()),
    card);
  const {node, front, numbered, beyond} =
    frontFigure(study, {width: roomIn(card), balance: state.balance, log, cut: state.cut, base: state.base});
  const keys = [
    markKey('member', 'mean, on the Pareto front'), markKey('', 'mean, off it'), markKey('base', 'base: ' + baseName())
  ];
  if (study.repeated)
    keys.push(markKey('seed', 'a seed'), markKey('spread', 'standard deviation over seeds, both ways'));
  keys.push(markKey('line', 'what the front reaches'));
  if (beyond) keys.push(element('span', {}, '△ beyond the axis, its loss beside it'));
  const {title, unit} = measureOf(state.balance), quality = measures[0];
  card.append(element(
    'figure', {class: 'figure'}, node,
    element(
      'figcaption', {}, element('span', {class: 'marks-key'}, ...keys), element('br'),
      quality.title + ': ' + quality.unit + '. ' + title + ': ' + unit + '.')));
  if (numbered && settings.length <= 40)
    card.append(element(
      'ul', {class: 'key'},
      ...settings.map((setting, i) => element('li', {}, element('b', {}, String(i + 1)), setting.name))));
  card.append(
    element(
      'p', {class: 'small'}, element('b', {}, 'On the front of means'), ', from the best balance to the best quality:'),
    element(
      'ul', {class: 'front-list small'},
      ...front.map(
        ({i, name}) => element(
          'li', {}, element('b', {}, name),
          (numbered ? ' (' + (i + 1) + ')' : '') + ': ' + quality.title.toLowerCase() + ' ' +
            valueText(settings[i], 'quality') + ', ' + title + ' ' + valueText(settings[i], state.balance)))));
}

// ---- figures by parameter, over time -------------------------------------------------------------------------------

function drawParameters() {
  const varying = facts.parameters.filter(({key, values}) => values.length > 1 && key !== 'train.seed');
  const shown =
    varying.map(({key, values}) => ({key, values, numeric: values.every(isNumber), alone: varying.length === 1}))
      .filter(
        ({values, numeric, alone}) => numeric
          ? values.length > 1
          : !alone && values.length <= 10 && values.every((value) => textWidth(wordOf(value)) < 120));
  if (!hasResults || !shown.length) return leaveOut('parameters');
  const keys = ['quality', ...(state.balance ? [state.balance] : [])];
  byId('parameters')
    .replaceChildren(
      sectionHead(
        'By parameter',
        'each mark a setting' + (study.repeated ? ', its mean and standard deviation over seeds' : '') +
          '; filled: the base'),
      element(
        'div', {class: 'grid'},
        ...shown.flatMap(
          (parameter) => keys.map(
            (key) => element(
              'figure', {class: 'figure card'},
              parameterFigure(study, {width: 420, parameter, key, base: state.base}))))));
}

// So many panels a page bears: the base, the front, and the best by loss.
function bestOf24() {
  const loss = (i) => summaryOf(settings[i], 'quality').mean;
  const ranked = settings.map((unused, i) => i).filter((i) => isNumber(loss(i))).sort((a, b) => loss(a) - loss(b));
  return new Set(
    [...new Set([state.base, ...(state.balance ? study.fronts[state.balance] : []), ...ranked])].slice(0, 24));
}

function drawCurves() {
  const all = settings.map((unused, i) => i).slice(0, study.curves.length);
  const shown = state.curves === 'all' || all.length <= 24 ? all : all.filter((i) => bestOf24().has(i));
  const controls = all.length <= 24
    ? []
    : [select(
        'settings', [['best', 'the base, the front and the best by loss'], ['all', 'all']], state.curves, (value) => {
          state.curves = value;
          drawCurves();
        })];
  const held = study.sources.length ? '; circles: held out, mean of the sources' : '';
  const groups =
    [
      ['loss', 'Loss', 'nats a token' + held + '; dashed: training of ' + baseName()],
      ['difference', 'Loss minus the base’s', 'same seed against same seed, ' + baseName() + ' being 0' + held],
      ['max_vio', 'MaxVio', 'worst layer; dashed: ' + baseName()]
    ].map(([group, title, unit]) => ({title, unit, panels: curveFigures(study, {group, base: state.base, shown})}))
      .filter(({panels}) => panels);
  if (!groups.length) return leaveOut('curves');
  byId('curves').replaceChildren(
    sectionHead(
      'Curves by setting',
      'over steps; line: training, mean of what was logged' + (study.repeated ? '; band: lowest to highest seed' : '') +
        '; losses from a tenth of the steps on' +
        (shown.length < settings.length ? '; ' + shown.length + ' of ' + settings.length + ' settings' : ''),
      ...controls),
    element(
      'div', {class: 'card long'},
      ...groups.flatMap(
        ({title, unit, panels}) =>
          [element('h3', {class: 'multiples-head'}, title + ' ', element('span', {class: 'soft'}, unit)),
           element('div', {class: 'multiples'}, ...panels)])));
}

function drawLoads() {
  const {loads} = study;
  if (!loads.length) return leaveOut('loads');
  const runs = [...new Set(loads.map(({run}) => run))];
  const few = [...new Set(loads.map(({setting}) => setting))].length * loads[0].layers <= 160;
  if (state.load === null) state.load = few ? 'all' : String(loads[0].setting);
  const shown =
    loads.filter(({setting, run}) => run === state.seed && (state.load === 'all' || setting === Number(state.load)));
  const controls = [];
  const named = [...new Set(loads.map(({setting}) => setting))].map((i) => [i, settings[i].name]);
  if (named.length > 1)
    controls.push(select('setting', [...(few ? [['all', 'all']] : []), ...named], state.load, (value) => {
      state.load = value;
      drawLoads();
    }));
  const seedText = (run) => (settings.map((setting) => setting.runs[run]).find(Boolean) || {}).seed || String(run + 1);
  if (runs.length > 1)
    controls.push(select('seed', runs.map((run) => [run, seedText(run)]), state.seed, (value) => {
      state.seed = Number(value);
      drawLoads();
    }));
  const scale =
    element('span', {class: 'grey-scale'}, 'none, ⅛×', element('i'), '8× the even share, which is the middle');
  const readout = element('p', {class: 'load-part'}, '');
  const quiet = 'A panel a layer, a row an expert, steps from left to right' +
    (study.repeated ? '; seed ' + seedText(state.seed) : '') + '.';
  const tell = (text) => {
    readout.textContent = text || quiet;
  };
  tell('');
  byId('loads').replaceChildren(
    sectionHead('Load by layer and expert', '', ...controls),
    element(
      'div', {class: 'card long'}, scale, readout,
      ...shown.map(
        (load) => element(
          'div', {class: 'load-block'},
          element('h3', {}, element('span', {class: 'soft'}, (load.setting + 1) + '  '), settings[load.setting].name),
          element('div', {class: 'load-times'}, ...loadPanels(load, settings[load.setting].name, tell))))));
}

// ---- the rest ------------------------------------------------------------------------------------------------------

function drawFailed() {
  const failed = settings.flatMap(({runs}) => runs.filter(({standing}) => standing === 'failed'));
  if (!failed.length) return leaveOut('failed');
  byId('failed').replaceChildren(
    sectionHead('Points that failed', failed.length + '; smoe sweep --retry-failed runs them again'),
    ...failed.slice(0, longestTable)
      .map(
        ({point, error}) => element(
          'div', {class: 'card'}, element('h3', {}, point),
          element('pre', {class: 'error'}, error || 'no error was recorded'))));
}

const shell = (text) => /^[\w.\/=+,:-]+$/.test(text) ? text : '\'' + text.replace(/'/g, '\'\\\'\'') + '\'';

function drawReproduce() {
  const directory = facts.directory.replace(/\/$/, '');
  const overrides =
    settings.slice(0, longestTable)
      .map(
        ({overrides: list}, i) => element(
          'tr', {}, ...nameCells(i),
          element(
            'td', {},
            element(
              'code', {},
              list.length ? list.map(([key, value]) => shell(key + '=' + value)).join(' ') : 'the base as it is'))));
  const seed = study.repeated ? ' train.seed=' + (settings[0].runs[0].seed || '1') : '';
  byId('reproduce')
    .replaceChildren(
      sectionHead('How to reproduce it', 'from the directory where the sweep was started'),
      element(
        'div', {class: 'card long'}, element('p', {class: 'small'}, 'All points, or those that are left:'),
        element('pre', {}, 'smoe sweep ' + shell(directory + '/sweep.yaml')),
        element('p', {class: 'small'}, 'One run of a setting, by what it changes in the base:'),
        element(
          'pre', {},
          'smoe train ' + shell(directory + '/base.yaml') + ' KEY=VALUE...' + seed + ' train.output_dir=runs/again'),
        element(
          'details', {}, element('summary', {class: 'small'}, 'What each setting changes'),
          element(
            'div', {class: 'scroll'}, element('table', {class: 'wide small'}, element('tbody', {}, ...overrides)))),
        element(
          'p', {class: 'small soft'},
          'results.jsonl and results.csv beside this page have every point’s values, and the hashes of its initial ' +
            'weights and of its data.')));
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
const drawForPaper = (starts) => {
  printing = starts;
  if (starts)
    document.querySelectorAll('details').forEach((one) => {
      one.open = true;
    });
  drawFront();
};
addEventListener('beforeprint', () => drawForPaper(true));
addEventListener('afterprint', () => drawForPaper(false));
drawAll();
document.documentElement.dataset.ready = 'true';
