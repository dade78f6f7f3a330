'use strict';
// What all sections of a study's report share: the data from the JSON in #data, what the reader chose, numbers as text,
// controls.

const study = JSON.parse(document.getElementById('data').textContent);
const {settings, measures, facts} = study;
const byId = (id) => document.getElementById(id);
const leaveOut = (id) => { byId(id).hidden = true; };
const measureOf = (key) => measures.find((one) => one.key === key);
const hasResults = settings.some((setting) => setting.summary.quality);
const state = {
  base: 0,
  balance: Object.keys(study.fronts)[0],
  log: null,
  cut: true,
  seed: 0,
  load: null,
  order: 'file',
  curves: 'best'
};
const longestTable = 500;

const fixed = (value, digits) => isNumber(value) ? value.toFixed(digits) : '–';
const signed = (value, digits) => isNumber(value) ? (value < 0 ? '−' : '+') + Math.abs(value).toFixed(digits) : '–';
const valueText = (setting, key) => {
  const {n, mean: m, sd} = summaryOf(setting, key), {digits} = measureOf(key);
  return n ? fixed(m, digits) + (isNumber(sd) ? ' ± ' + fixed(sd, digits) : '') : '–';
};
const differenceTo = (key, i) => (study.differences[state.base][key] || [])[i] || null;
const isClear = (difference) =>
  difference && isNumber(difference[2]) && (difference[1] - difference[2] > 0 || difference[1] + difference[2] < 0);
const differenceText = (difference, digits) => !difference ? '–'
                                                           : signed(difference[1], digits) +
    (isNumber(difference[2]) ? ' ± ' + fixed(difference[2], digits) : '') + (difference[3] ? '' : '†');
// Short enough for a heading.
const baseName = () =>
  settings[state.base].name.length <= 32 ? settings[state.base].name : 'setting ' + (state.base + 1);

let printing = false;
// The width inside a card. Paper has its own, whatever the window was.
function roomIn(card) {
  const style = getComputedStyle(card);
  return printing
    ? 760
    : Math.max(260, Math.floor(card.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)));
}

function select(label, options, value, act) {
  const node =
    element('select', {'aria-label': label}, ...options.map(([key, text]) => element('option', {value: key}, text)));
  node.value = String(value);
  node.addEventListener('change', () => act(node.value));
  return element('label', {}, label, node);
}

function sectionHead(title, note, ...controls) {
  return element(
    'div', {class: 'section-head'}, element('h2', {}, title), note ? element('span', {class: 'soft'}, note) : null,
    controls.length ? element('div', {class: 'controls'}, ...controls) : null);
}

function order() {
  const indices = settings.map((unused, i) => i);
  const value = (i) => summaryOf(settings[i], state.order).mean;
  if (state.order !== 'file')
    indices.sort((a, b) => (isNumber(value(a)) ? value(a) : Infinity) - (isNumber(value(b)) ? value(b) : Infinity));
  return indices;
}
