'use strict';
// Numbers as the page writes them, and what is made of columns of them. Of the page itself it knows nothing.

const isNumber = (value) => typeof value === 'number' && isFinite(value);

function significant(value, digits) {
  if (!isNumber(value)) return '–';
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, 'e').replace('e+', 'e');
  }
  return String(Number(value.toPrecision(digits)));
}

function short(value) {  // 12300 -> 12.3k
  if (!isNumber(value)) return '–';
  const letters = ['', 'k', 'M', 'B', 'T'];
  let letter = 0;
  while (Math.abs(value) >= 999.5 && letter + 1 < letters.length) {
    value /= 1000;
    ++letter;
  }
  return Number(value.toPrecision(3)) + letters[letter];
}

const whole = (value) => isNumber(value) ? value.toLocaleString('en') : '–';

function duration(seconds) {
  if (!isNumber(seconds)) return '–';
  if (seconds < 60) return significant(seconds, 3) + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min ' + Math.round(seconds % 60) + ' s';
  return Math.floor(seconds / 3600) + ' h ' + Math.round(seconds % 3600 / 60) + ' min';
}

const percent = (value) => isNumber(value) ? (100 * value).toFixed(1) + '%' : '–';
const mebibytes = (value) => isNumber(value) && value > 0 ? whole(Math.round(value / 1048576)) + ' MiB' : '–';
const last = (values) => values && values.length ? values[values.length - 1] : undefined;

function mean(values) {
  const present = values.filter(isNumber);
  return present.length ? present.reduce((sum, value) => sum + value, 0) / present.length : undefined;
}

function median(values) {
  const present = (values || []).filter(isNumber).sort((a, b) => a - b);
  return present.length ? present[Math.floor((present.length - 1) / 2)] : undefined;
}
