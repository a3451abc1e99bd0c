'use strict';
/* Small helpers, and tables that sort by a click on a column's title. */

const SVG = 'http://www.w3.org/2000/svg';

/** An element with attributes and children; text is a child too. */
function element(tag, attributes = {}, ...children) {
  const svg = ['svg', 'g', 'rect', 'text', 'line', 'image', 'circle', 'title'];
  const made = svg.includes(tag)
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children);
  return made;
}

/** A line as in a legend; the style says more than the colour. */
function swatch(colour, dash, verdict = false) {
  return element('svg', {
    class: verdict ? 'swatch verdict' : 'swatch', viewBox: '0 0 34 12',
    'aria-hidden': 'true',
  }, element('line', {
    x1: 2, x2: 32, y1: 6, y2: 6, stroke: colour, 'stroke-width': 2.5,
    'stroke-dasharray': dash || 'none',
  }));
}

/** A labelled check box for a form of controls. */
function checkBox(name, value, text, checked, ...before) {
  return element('label', {},
    element('input', { type: 'checkbox', name, value, checked }),
    ...before, text);
}

/** The values of the checked boxes of a name. */
function checkedValues(form, name) {
  return [...form.querySelectorAll(`input[name="${name}"]:checked`)]
    .map((box) => box.value);
}

/** The number that a cell begins with; null where there is none. */
function cellNumber(row, column) {
  const text = row.cells[column].textContent.replace('\u2212', '-');
  const found = text.match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
}

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const numbers = rows.map((row) => cellNumber(row, column));
  const numeric = column > 0 && numbers.some((value) => value !== null);
  const text = (row) => row.cells[column].textContent;
  const order = rows.map((row, index) => index).sort((a, b) => {
    if (!numeric) return text(rows[a]).localeCompare(text(rows[b]));
    // What is no number goes to the end, whichever way.
    const none = descending ? -Infinity : Infinity;
    return (numbers[a] ?? none) - (numbers[b] ?? none) || 0;
  });
  if (descending) order.reverse();
  body.append(...order.map((index) => rows[index]));
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element('button', { type: 'button' }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      const descending = head.getAttribute('aria-sort') !== 'descending';
      heads.forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', descending ? 'descending' : 'ascending');
      sortTable(table, column, descending);
    });
  });
}
