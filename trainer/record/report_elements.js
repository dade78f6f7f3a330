'use strict';
// Nodes of a page. Text from the user's files only ever becomes a text node.

// element('td', {class: 'number'}, 'text', child, ...)
function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}
