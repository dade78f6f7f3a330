'use strict';
// Draws the page from the JSON in #data. Text from the user's files only ever becomes a text node.
(function () {
  const {analysis, line_styles: lineStyles} = JSON.parse(document.getElementById('data').textContent);
  const {layers, experts, experts_per_token: perToken, sources} = analysis;
  const byId = (id) => document.getElementById(id);
  const within = (id, part) => byId(id).querySelector('.' + part);
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const styleOf = (line) => ({color: lineStyles[line][dark.matches ? 'dark' : 'light'], dash: lineStyles[line].dash});
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const upTo = (count) => Array.from({length: count}, (unused, i) => i);
  const shownLayers = [...new Set([0, (layers - 1) >> 1, layers - 1])];
  const ordinal = (n) => n + (n % 100 >= 11 && n % 100 <= 13 ? 'th' : ['th', 'st', 'nd', 'rd'][n % 10] || 'th');
  const inPercent = (value) => isNumber(value) ? (100 * value).toFixed(1) : '–';
  const bits = (value) => isNumber(value) ? value.toFixed(4) : '–';
  const layer = () => Number(byId('layer').value);
  let alone = null;  // the one expert whose tokens are coloured

  function options(id, list) {  // [[value, text]]
    byId(id).replaceChildren(...list.map(([value, text]) => element('option', {value}, text)));
  }

  function table(headings, rows, numbersFrom) {
    const head = headings.map((heading, i) => element('th', {class: i >= numbersFrom ? 'number' : ''}, heading));
    return element('div', {class: 'card scroll'}, element('table', {class: 'wide'},
      element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows)));
  }

  const sourceSeries = (valuesOf) => sources.map((source, s) => ({label: source.name, values: valuesOf(s), style: styleOf(s)}));
  const domainLegend = () => legendOf(sourceSeries(() => []));

  // ---- shares -----------------------------------------------------------------------------------------------------

  function drawShares() {
    const choice = byId('choice').value, box = within('shares', 'figures');
    const of = (s, l) => choice === 'all' ? analysis.shares[s][l].assignments : analysis.shares[s][l].choices[Number(choice)];
    box.replaceChildren();
    for (const l of [...new Set([...shownLayers, layer()])].sort((a, b) => a - b)) {
      barFigure(box, {title: 'Layer ' + l, note: 'per cent, by expert', series: sourceSeries((s) => of(s, l)),
        names: upTo(experts).map(String), rule: 1 / experts, format: inPercent});
    }
    const known = within('shares', 'legend.domains');
    if (known) known.remove();
    const legend = domainLegend();
    legend.classList.add('domains');
    box.before(legend);
  }

  // ---- repetition -------------------------------------------------------------------------------------------------

  function drawRepetition() {
    const {uniform, sources: found} = analysis.repetition;
    const kinds = [['first_choice', 'first choice'], ['top_k', 'top ' + perToken]];
    const cells = (cell) => kinds.flatMap(([kind]) => shownLayers.map((l) => cell(kind, l)));
    const rows = found.map((byLayer, s) => element('tr', {}, element('th', {}, sources[s].name), ...cells((kind, l) => {
      const {rate, standard_error: error, independent} = byLayer[l][kind];
      return element('td', {class: 'number', title: isNumber(error) ? 'standard error ' + inPercent(error) : ''},
        inPercent(rate), element('span', {class: 'soft'}, ' (' + inPercent(independent) + ')'));
    })));
    rows.push(element('tr', {}, element('th', {}, 'even'), ...cells((kind) =>
      element('td', {class: 'number soft'}, inPercent(uniform[kind])))));
    within('repetition', 'content').replaceChildren(
      table(['', ...cells((kind, l) => kinds.find(([key]) => key === kind)[1] + ', layer ' + l)], rows, 1));
    const box = within('repetition', 'figures');
    box.replaceChildren();
    for (const [kind] of kinds) {
      lineFigure(box, {title: kind === 'top_k' ? 'An expert of the top ' + perToken + ' in common' : 'The same first choice',
        note: 'per cent of pairs, by layer', series: sourceSeries((s) => found[s].map((one) => one[kind].rate)),
        names: upTo(layers).map(String), rules: [{label: 'even', value: uniform[kind]}], format: inPercent});
    }
  }

  // ---- information ------------------------------------------------------------------------------------------------

  function drawInformation() {
    const {domain, token} = analysis.information;
    const cells = (found) => {
      if (!found) return [element('td', {class: 'number'}, '–'), element('td', {class: 'number'}, '–')];
      const corrected = isNumber(found.corrected);
      return [element('td', {class: 'number', title: 'as counted ' + bits(found.bits) + ', by chance ' + bits(found.permuted)},
        bits(corrected ? found.corrected : found.bits), corrected ? null : element('span', {class: 'soft'}, ' as counted')),
      element('td', {class: 'number'}, isNumber(found.p) ? significant(found.p, 2) : '–')];
    };
    const rows = upTo(layers).map((l) => element('tr', {}, element('th', {}, 'layer ' + l),
      ...cells(domain.length ? domain[l].first_choice : null), ...cells(domain.length ? domain[l].assignments : null),
      ...cells(token[l].first_choice),
      element('td', {class: 'number'}, percent(token[l].first_choice.of_entropy)),
      element('td', {class: 'number'}, bits(token[l].first_choice.entropy))));
    within('information', 'content').replaceChildren(table(['', 'domain; first choice', 'p', 'domain; any choice', 'p',
      'token; first choice', 'p', 'of its entropy', 'entropy of the first choice'], rows, 1));
  }

  // ---- coloured tokens --------------------------------------------------------------------------------------------

  function tint(node, expert) {
    const {color} = styleOf(expert);
    node.style.background = color + '38';
    node.style.borderColor = color;
  }

  function drawExcerpts() {
    byId('excerpts').hidden = !analysis.excerpts.length;
    const buttons = upTo(experts).map((e) => {
      const button = element('button', {type: 'button', 'aria-pressed': String(alone === e)}, String(e));
      tint(button, e);
      button.addEventListener('click', () => {
        alone = alone === e ? null : e;
        drawExcerpts();
      });
      return button;
    });
    byId('experts').replaceChildren(...buttons);
    const blocks = analysis.excerpts.map(({texts, first_choice: chosen}, s) => {
      const text = element('p', {});
      texts.forEach((piece, i) => {
        const expert = chosen[layer()][i];
        const token = element('span', {class: alone === null || alone === expert ? 'token' : 'token other',
          title: 'expert ' + expert}, piece, element('sub', {}, String(expert)));
        tint(token, expert);
        text.append(token, piece.endsWith('\\n') ? '\n' : '');
      });
      return element('div', {class: 'card excerpt'}, element('h3', {}, sources[s].name + ', layer ' + layer()), text);
    });
    within('excerpts', 'content').replaceChildren(...blocks);
    within('excerpts', 'content').classList.toggle('no-numbers', !byId('numbers').checked);
  }

  // ---- tokens of each expert --------------------------------------------------------------------------------------

  function tokenList(tokens) {
    if (!tokens.length) return element('span', {class: 'soft'}, 'none');
    return element('div', {class: 'token-list'}, ...tokens.map(({id, text, count, occurrences, share}) =>
      element('span', {title: 'id ' + id + ': ' + count + ' of ' + occurrences},
        element('code', {}, text.replaceAll(' ', '␣')), element('span', {class: 'soft'}, ' ' + Math.round(100 * share) + '%'))));
  }

  function drawTokens() {
    const rows = analysis.top_tokens.layers[layer()].map(({specific, frequent}, e) => element('tr', {},
      element('th', {}, String(e)), element('td', {}, tokenList(specific)), element('td', {}, tokenList(frequent))));
    within('tokens', 'content').replaceChildren(table(['expert', 'most specific', 'most frequent'], rows, 3));
    within('tokens', 'hint').textContent = 'Layer ' + layer() + ', first choices, all domains together. Per cent of the token’s ' +
      'places that go there; specific: of those that occur ' + analysis.top_tokens.least_occurrences + ' times or more.';
  }

  // ---- cache ------------------------------------------------------------------------------------------------------

  function drawCache() {
    const {least, even, sources: found} = analysis.cache, box = within('cache', 'figures');
    const fixed = even.map((unused, i) => mean(found.map((byLayer) => byLayer[layer()].fixed[i])));
    const ink = css('--ink-soft');
    box.replaceChildren();
    lineFigure(box, {title: 'Layer ' + layer(), note: 'per cent at hand, by experts kept', series: [
      ...sourceSeries((s) => found[s][layer()].lru),
      {label: 'most used', values: fixed, style: {color: ink, dash: [7, 4]}},
      {label: 'even router', values: even, style: {color: ink, dash: [2, 3]}},
    ], names: upTo(even.length).map((i) => String(least + i)), rules: [], format: inPercent});
  }

  // ---- overlap ----------------------------------------------------------------------------------------------------

  const kindsOfOverlap = [['weights', 'all weights'], ['outputs', 'outputs'], ['w1', 'w1 (gate)'], ['w2', 'w2 (down)'], ['w3', 'w3 (up)']];

  function cosineColour(value) {
    const ends = ['--load-low', '--load-even', '--load-high'].map(
      (name) => css(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
    const t = isNumber(value) ? Math.max(-1, Math.min(1, value)) : 0;
    return ends[1].map((from, i) => Math.round(from + Math.abs(t) * (ends[t < 0 ? 0 : 2][i] - from)));
  }

  function cosineTable(cosines) {
    const dense = experts > 16;
    const head = element('tr', {}, element('th', {}, ''),
      ...upTo(experts).map((e) => element('th', {}, dense && e % 8 ? '' : String(e))));
    const rows = cosines.map((row, e) => element('tr', {}, element('th', {}, String(e)), ...row.map((value, f) => {
      const cell = element('td', {title: 'experts ' + e + ' and ' + f + ': ' + significant(value, 4)},
        dense || e === f ? '' : isNumber(value) ? value.toFixed(2).replace('-0.00', '0.00') : '–');
      const [red, green, blue] = cosineColour(value);
      cell.style.background = 'rgb(' + [red, green, blue] + ')';
      cell.style.color = 0.3 * red + 0.59 * green + 0.11 * blue > 135 ? '#17191d' : '#ffffff';
      return cell;
    })));
    return element('table', {class: dense ? 'load-table square dense' : 'load-table square'}, element('thead', {}, head),
      element('tbody', {}, ...rows));
  }

  function drawOverlap() {
    const kind = byId('overlap-of').value, box = within('overlap', 'figures'), found = analysis.overlap.layers;
    box.replaceChildren(element('div', {class: 'card'},
      element('div', {class: 'chart-head'}, element('h3', {}, 'Layer ' + layer()),
        element('span', {class: 'soft'}, kindsOfOverlap.find(([key]) => key === kind)[1])),
      element('div', {class: 'matrix'}, cosineTable(found[layer()][kind].cosines))));
    lineFigure(box, {title: 'Mean over pairs', note: 'cosine, by layer', series: kindsOfOverlap.map(([key, label], i) =>
      ({label, values: found.map((one) => one[key].mean), style: styleOf(i)})),
    names: upTo(layers).map(String), rules: [], format: (value) => significant(value, 3)});
  }

  // ---- the page ---------------------------------------------------------------------------------------------------

  const drawers = [drawShares, drawRepetition, drawInformation, drawExcerpts, drawTokens, drawCache, drawOverlap];
  const drawOnly = (...draws) => {
    draws.forEach((draw) => draw());
    drawFigures();
  };
  const drawAll = () => drawOnly(...drawers);

  const tokens = sources.reduce((sum, source) => sum + source.tokens, 0);
  byId('read').textContent = layers + ' layers of ' + experts + ' experts, ' + perToken + ' a token; ' + whole(tokens) +
    ' tokens of ' + sources.length + ' domains in sequences of ' + analysis.sequence_length + '; ' + analysis.permutations +
    ' permutations' + (analysis.forced_routing ? '; trained with forced routing: ' + analysis.forced_routing : '');
  options('layer', upTo(layers).map((l) => [l, l + (l === 0 ? ', the first' : l === layers - 1 ? ', the last' : '')]));
  byId('layer').value = shownLayers[shownLayers.length >> 1];
  options('choice', [['all', 'all ' + perToken], ...upTo(perToken).map((j) => [j, ordinal(j + 1)])]);
  options('overlap-of', kindsOfOverlap);

  byId('layer').addEventListener('input', () => drawOnly(drawShares, drawExcerpts, drawTokens, drawCache, drawOverlap));
  byId('choice').addEventListener('input', () => drawOnly(drawShares));
  byId('numbers').addEventListener('input', drawExcerpts);
  byId('overlap-of').addEventListener('input', () => drawOnly(drawOverlap));
  byId('controls').addEventListener('submit', (event) => event.preventDefault());
  dark.addEventListener('change', drawAll);
  let width = document.documentElement.clientWidth;
  addEventListener('resize', () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    drawAll();
  });
  drawAll();
  document.documentElement.dataset.figures = document.querySelectorAll('.figure svg').length;
  document.documentElement.dataset.ready = 'true';
})();
