/* The classes of a box in the teacher's order and in a student's. */

const ROW = 22;
const WIDE = 400;

/** Pairs, as indices, that the student has in the other order. */
function swappedPairs(classes) {
  const pairs = [];
  for (let first = 0; first < classes.length; first += 1) {
    for (let second = first + 1; second < classes.length; second += 1) {
      const higher = classes[first][3] < classes[second][3];
      if (higher !== (classes[first][4] < classes[second][4])) {
        pairs.push(higher ? [first, second] : [second, first]);
      }
    }
  }
  return pairs;
}

function shorter(name, length = 18) {
  return name.length > length ? `${name.slice(0, length - 1)}\u2026` : name;
}

function percent(value) {
  if (value === null) return 'NaN';
  return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
}

/** Where the lines of two classes cross. */
function crossing([left, right], [otherLeft, otherRight]) {
  const part = (otherLeft - left) / (otherLeft - left - otherRight + right);
  return { cx: 172 + 50 * part, cy: left + part * (right - left) };
}

/** Two columns of classes, joined by lines; each swapped pair is a dot. */
function orderPicture(classes, swapped, names, true_) {
  const height = ROW * classes.length + 4;
  const picture = element('svg', { viewBox: `0 0 ${WIDE} ${height}`, 'aria-hidden': 'true' });
  const order = (rank) => classes.map((each, index) => index)
    .sort((a, b) => classes[a][rank] - classes[b][rank]);
  const taught = order(3);
  const own = order(4);
  const middle = (list, index) => ROW * list.indexOf(index) + ROW / 2 + 2;
  const ends = classes.map((each, index) => [middle(taught, index), middle(own, index)]);
  classes.forEach(([name, teacher, student, , rank], index) => {
    const [left, right] = ends[index];
    const kind = { class: name === true_ ? 'true' : '' };
    picture.append(
      element('text', { x: 0, y: left + 4, ...kind }, shorter(names[name]), element('title', {}, names[name])),
      element('text', { x: 165, y: left + 4, 'text-anchor': 'end', class: 'faint' }, percent(teacher)),
      element('line', { x1: 172, x2: 222, y1: left, y2: right }),
      element('text', { x: 229, y: right + 4, ...kind }, `${rank}. ${shorter(names[name], 16)}`),
      element('text', { x: WIDE, y: right + 4, 'text-anchor': 'end', class: 'faint' }, percent(student)));
  });
  picture.append(...swapped.map(([first, second]) => element('circle', {
    ...crossing(ends[first], ends[second]), r: 3.5,
  }, element('title', {}, `${names[classes[first][0]]} before ${names[classes[second][0]]} for the teacher`))));
  return picture;
}

/** A student's order beside the teacher's, in a picture and in words. */
function orderView(label, list, names, true_) {
  const swapped = swappedPairs(list.classes);
  const total = list.classes.length * (list.classes.length - 1) / 2;
  const name = (index) => names[list.classes[index][0]];
  let words = `${swapped.length} of these ${total} pairs in the wrong order`;
  if (swapped.length) {
    const some = swapped.slice(0, 3).map(([a, b]) => `${name(a)} before ${name(b)}`);
    const more = swapped.length > 3 ? ` and ${swapped.length - 3} more` : '';
    words += `; for the teacher ${some.join(', ')}${more}`;
  }
  const tau = list.tau === null ? '' : ` (tau over all classes ${list.tau.toFixed(2)})`;
  return element('div', { class: 'order' },
    element('h5', {}, `teacher \u2192 ${label}${tau}`),
    orderPicture(list.classes, swapped, names, true_),
    element('p', {}, `${words}.`));
}

/** The ranked classes of an image's boxes, made when they are opened. */
function rankingDetails(entry, names, chosen) {
  if (!entry.ranks.length) return null;
  const box = element('details', { class: 'ranking' }, element('summary', {},
    `Ranked classes (${entry.ranks.length})`));
  box.fill = (labels) => {
    box.querySelectorAll('section').forEach((old) => old.remove());
    entry.ranks.forEach((row, index) => {
      const true_ = row.object?.at(-1);
      const title = row.object
        ? `${index + 1}. True class: ${names[true_]}`
        : `Place ${index + 1} of which the teacher is surest`;
      const orders = element('div', { class: 'orders' });
      for (const [label, list] of Object.entries(row.lists)) {
        if (labels.includes(label)) orders.append(orderView(label, list, names, true_));
      }
      box.append(element('section', {}, element('h4', {}, title), orders));
    });
  };
  box.addEventListener('toggle', () => { if (box.open) box.fill(chosen()); });
  return box;
}
