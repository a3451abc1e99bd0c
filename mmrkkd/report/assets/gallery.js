/* Images sorted by disagreement, with filters. */

const KINDS = ['correct', 'wrong_class', 'no_object', 'missed'];

/** A score, which of a model that has diverged is no number. */
function decimals(score) {
  return typeof score === 'number' ? score.toFixed(2) : 'NaN';
}

class Gallery {
  constructor(data) {
    this.data = data;
    this.form = document.getElementById('filters');
    this.place = document.getElementById('images');
    this.makeControls();
    this.cards = data.entries.map((entry) => this.makeCard(entry));
    const redraw = () => this.update();
    this.form.addEventListener('change', redraw);
    this.form.elements.score.addEventListener('input', redraw);
    this.form.addEventListener('submit', (event) => event.preventDefault());
    this.update();
  }

  /** What the controls say. */
  get chosen() {
    const form = this.form;
    return {
      class: form.elements.class.value,
      score: Number(form.elements.score.value),
      kinds: new Set(checkedValues(form, 'kind')),
      models: checkedValues(form, 'model'),
      sort: form.elements.sort.value,
      labels: form.elements.labels?.checked,
      size: form.elements.size?.value,
    };
  }

  makeControls() {
    const { names, models, shown, styles, meanings, boxes } = this.data;
    const used = new Set(this.data.entries.flatMap((entry) => [
      ...entry.objects.map((each) => each.at(-1)),
      ...Object.values(entry.found).flat().map((each) => each.at(-3)),
    ]));
    const classes = [...used].sort((a, b) => names[a].localeCompare(names[b]));
    const option = (value, text) => element('option', { value }, text);
    const field = (text, ...parts) => element('label', {},
      element('span', { class: 'name' }, text), ...parts);
    const score = element('output', {}, '');
    const kinds = element('fieldset', {}, element('legend', {}, 'Kinds'));
    for (const kind of KINDS.filter((each) => boxes || !['no_object', 'missed'].includes(each))) {
      kinds.append(checkBox('kind', kind, meanings[kind], true,
        swatch(styles[kind].colour, STROKES[styles[kind].dash], true)));
    }
    const chosen = element('fieldset', {}, element('legend', {}, 'Models'));
    models.forEach((name) => chosen.append(
      checkBox('model', name, name, shown.includes(name))));
    const sorts = [option('disagreement', 'disagreement'), option('name', 'name'),
      ...models.map((name) => option(`errors:${name}`, `errors of ${name}`))];
    if (this.data.entries.some((entry) => entry.ranks.length)) {
      sorts.push(option('tau', 'tau to the teacher, lowest first'));
    }
    this.form.append(
      field('Sort by', element('select', { name: 'sort' }, ...sorts)),
      field('Class', element('select', { name: 'class' }, option('', 'all'),
        ...classes.map((index) => option(index, names[index])))),
      field('Score at least', element('input', {
        type: 'range', name: 'score', min: this.data.least, max: 0.95, step: 0.05, value: this.data.threshold,
      }), score),
      kinds, chosen);
    if (boxes) {
      this.form.append(
        field('Names', element('input', { type: 'checkbox', name: 'labels', checked: true })),
        field('Size', element('select', { name: 'size' }, option('small', 'small'), option('large', 'large'))));
    }
    this.score = score;
    this.count = document.getElementById('shown');
  }

  makeCard(entry) {
    const note = element('span', { class: 'note' });
    const panels = element('div', { class: this.data.boxes ? 'panels' : 'panels answers' });
    const ranking = rankingDetails(entry, this.data.names, () => this.chosen.models);
    const article = element('article', {}, element('h3', {}, `${entry.name} `, note), panels);
    if (ranking) article.append(ranking);
    const card = { entry, article, note, panels: {}, ranking };
    const add = (name) => {
      const marks = element('g');
      const caption = element('figcaption');
      const picture = element('svg', { viewBox: `0 0 ${entry.width} ${entry.height}`, role: 'img' },
        element('image', { href: entry.jpeg, width: entry.width, height: entry.height }), marks);
      const figure = element('figure', {}, picture, caption);
      panels.append(figure);
      card.panels[name] = { figure, picture, marks, caption };
    };
    add('');
    if (this.data.boxes) this.data.models.forEach(add);
    else panels.append(card.said = element('ul', { class: 'said' }));
    return card;
  }

  /** The boxes of a model that pass, each with its kind. */
  marksOf(entry, model, chosen) {
    const found = (entry.found[model] || []).filter((each) => each.at(-2) >= chosen.score);
    const met = new Set(found.map((each) => each.at(-1)));
    const marks = found.map((each) => {
      const object = entry.objects[each.at(-1)];
      let kind = 'no_object';
      if (object) kind = object.at(-1) === each.at(-3) ? 'correct' : 'wrong_class';
      return { box: each, label: each.at(-3), truth: object?.at(-1), score: each.at(-2), kind, object: each.at(-1) };
    });
    entry.objects.forEach((each, object) => {
      if (!met.has(object) && entry.found[model]) {
        marks.push({ box: each, label: each.at(-1), kind: 'missed', object });
      }
    });
    return marks;
  }

  passes(mark, chosen) {
    const wanted = chosen.class === '' || [mark.label, mark.truth].includes(Number(chosen.class));
    return wanted && chosen.kinds.has(mark.kind);
  }

  /** Objects that some models get right and others do not. */
  disagreement(all) {
    const right = Object.values(all).map((marks) => new Set(
      marks.filter((mark) => mark.kind === 'correct').map((mark) => mark.object)));
    const union = new Set(right.flatMap((each) => [...each]));
    return [...union].filter((object) => !right.every((each) => each.has(object))).length;
  }

  /** What an image is sorted by, larger first. */
  weight(card, all, chosen) {
    if (chosen.sort === 'tau') {
      const taus = card.entry.ranks.flatMap((row) => chosen.models
        .map((model) => row.lists[model]?.tau).filter((tau) => typeof tau === 'number'));
      return taus.length ? -taus.reduce((a, b) => a + b) / taus.length : -Infinity;
    }
    const [kind, ...rest] = chosen.sort.split(':');
    if (kind === 'errors') {
      return this.marksOf(card.entry, rest.join(':'), chosen)
        .filter((mark) => mark.kind !== 'correct').length;
    }
    return this.disagreement(all);
  }

  update() {
    const chosen = this.chosen;
    this.score.textContent = chosen.score.toFixed(2);
    this.place.dataset.size = chosen.size || 'small';
    let shown = 0;
    for (const card of this.cards) {
      const all = {};
      chosen.models.forEach((model) => { all[model] = this.marksOf(card.entry, model, chosen); });
      card.disputed = this.disagreement(all);
      card.weight = this.weight(card, all, chosen);
      const passing = Object.values(all).flat().some((mark) => this.passes(mark, chosen));
      card.article.hidden = !passing;
      shown += passing;
      if (passing) this.drawCard(card, all, chosen);
    }
    const byName = (a, b) => a.entry.name.localeCompare(b.entry.name, undefined, { numeric: true });
    const order = [...this.cards].sort(chosen.sort === 'name'
      ? byName : (a, b) => b.weight - a.weight || byName(a, b));
    // Moving an element closes no details and loses no focus unless it must.
    order.forEach((card, index) => {
      if (this.place.children[index] !== card.article) {
        this.place.insertBefore(card.article, this.place.children[index] || null);
      }
    });
    this.count.textContent = `${shown} of ${this.cards.length} images shown`;
  }

  drawCard(card, all, chosen) {
    const { entry, panels } = card;
    const count = entry.objects.length;
    card.note.textContent = this.data.boxes
      ? `${count} object${count === 1 ? '' : 's'}, models disagree on ${card.disputed}` : '';
    const truth = entry.objects.map((box) => ({ box, label: box.at(-1), kind: 'truth' }));
    const wanted = truth.filter((mark) => chosen.class === '' || mark.label === Number(chosen.class));
    this.drawPanel(panels[''], this.data.boxes ? wanted : [], 'Ground truth', `${count} objects`, chosen, entry);
    for (const model of this.data.boxes ? this.data.models : []) {
      panels[model].figure.hidden = !all[model];
      if (!all[model]) continue;
      const right = all[model].filter((mark) => mark.kind === 'correct').length;
      this.drawPanel(panels[model], all[model].filter((mark) => this.passes(mark, chosen)),
        model, entry.found[model] ? `${right} of ${count} right` : 'not run here', chosen, entry);
    }
    if (card.said) this.drawAnswers(card, all);
    if (card.ranking?.open) card.ranking.fill(chosen.models);
  }

  drawPanel({ picture, marks, caption }, boxes, title, words, chosen, entry) {
    // Names lie upon all boxes.
    const names = chosen.labels ? boxes.map((mark) => this.drawName(mark, entry)) : [];
    marks.replaceChildren(...boxes.map((mark) => this.drawBox(mark, entry)), ...names);
    const counts = KINDS.map((kind) => [kind, boxes.filter((mark) => mark.kind === kind).length])
      .filter(([, number]) => number).map(([kind, number]) => `${number} ${this.data.meanings[kind]}`);
    picture.setAttribute('aria-label', `${title}: ${counts.join(', ') || words}`);
    const truth = this.data.boxes ? words : `true class: ${this.data.names[entry.objects[0].at(-1)]}`;
    caption.replaceChildren(element('b', {}, this.data.boxes ? title : ''), `${this.data.boxes ? ' \u00b7 ' : ''}${truth}`);
  }

  /** A mark's class and score. */
  textOf({ label, score }) {
    const name = this.data.names[label];
    return score === undefined ? name : `${name} ${decimals(score)}`;
  }

  drawBox(mark, entry) {
    const [left, top, right, bottom] = mark.box;
    const { colour, dash } = this.data.styles[mark.kind];
    const unit = Math.max(entry.width, entry.height) / 240;
    const scaled = STROKES[dash].split(' ').map((each) => each * unit).join(' ');
    const frame = (attributes) => element('rect', {
      x: left, y: top, width: Math.max(right - left, 0),
      height: Math.max(bottom - top, 0), fill: 'none', ...attributes,
    });
    return element('g', { class: `box ${mark.kind}` },
      element('title', {}, `${this.textOf(mark)}: ${this.data.meanings[mark.kind]}`),
      frame({ class: 'halo', 'stroke-width': 4 * unit }),
      frame({
        stroke: colour, 'stroke-width': 2 * unit, 'pointer-events': 'all',
        'stroke-dasharray': STROKES[dash] ? scaled : 'none',
      }));
  }

  /** The text above a box, inside the picture. */
  drawName(mark, entry) {
    const [left, top, , bottom] = mark.box;
    const unit = Math.max(entry.width, entry.height) / 240;
    // The ground truth beside it says what is right, and what was missed.
    const short = { correct: decimals(mark.score), missed: '' };
    const text = short[mark.kind] ?? this.textOf(mark);
    const size = 11 * unit;
    const room = entry.width - 0.56 * size * text.length;
    return element('text', {
      x: Math.max(Math.min(left, room), 1),
      y: top > size * 1.2 ? top - 3 * unit : Math.min(bottom + size, entry.height - 2),
      fill: this.data.styles[mark.kind].colour, 'font-size': size,
      'stroke-width': 2.5 * unit,
    }, text);
  }

  drawAnswers(card, all) {
    const { names, meanings, styles } = this.data;
    card.said.replaceChildren(...Object.entries(all).flatMap(([model, marks]) => marks
      .filter((mark) => mark.kind !== 'missed')
      .map((mark) => element('li', { class: mark.kind },
        swatch(styles[mark.kind].colour, STROKES[styles[mark.kind].dash], true),
        ` ${model}: ${names[mark.label]} ${decimals(mark.score)} (${meanings[mark.kind]})`))));
  }
}
