// The gallery: draws the cells that the server describes, a column for each class, and sends what a person does with
// them. A change is drawn at once, and again when the server has answered. Images are asked for when they come into
// sight, and kept.
const root = element.querySelector('.wbc-gallery');
const stateTexts = JSON.parse(root.dataset.states);
const columns = [...root.querySelectorAll('[data-column]')].map(section => ({
    section, list: section.querySelector('.wbc-cells'), value: section.dataset.value, tag: section.dataset.tag,
    state: section.dataset.state,
}));
const FIXED = ['duplicate', 'removed'];  // no review changes these
const PATIENCE = 20000;  // milliseconds, before an answer is not waited for any more

let given = null, cells = new Map(), show = 'all', sort = 'unsure';
const elements = new Map(), selected = new Set(), missing = new Set();
let changes = [], ticket = Date.now(), anchor = 0, several = false, byKeyboard = false, asking = 0;
let held = false, dragged = [];

// ---- what the server says, and what was done since

function take() {
    if (held) return;
    const next = props.value ? JSON.parse(props.value) : null;
    if (next && next.key === given?.key && next.version <= given.version) return;  // answers overtake each other
    if (next?.key !== given?.key) { forget(); }
    const chosen = given?.chosen;
    given = next;
    changes = changes.filter(change => change.ticket > given.ticket);
    draw();
    if (given && given.chosen !== chosen && !root.matches(':hover')) reveal(elements.get(given.chosen));
    send();
}

function forget() {
    for (const it of elements.values()) it.remove();
    for (const kept of [elements, selected, missing]) kept.clear();
    changes = [];
}

function change(action, numbers, value = null) {
    if (given.signed && action !== 'cell') { say(given.signed); return; }
    changes.push({action, numbers, value, ticket: ++ticket});
    if (action !== 'cell') { selected.clear(); anchor = 0; }
    draw();
    // What a person did is on the screen before Gradio begins to send it, which takes longer. A hidden page has no frames;
    // what is sent already is not sent again.
    requestAnimationFrame(() => setTimeout(send));
    setTimeout(send, 100);
}

// One after the other: an undo must not overtake what it undoes.
function send() {
    const [next] = changes;
    if (!next || next.sent) return;
    next.sent = true;
    const {action, numbers, value} = next;
    trigger('click', {action, number: numbers.length === 1 ? numbers[0] : numbers, value, ticket: next.ticket});
    setTimeout(() => {
        if (!changes.includes(next)) return;
        changes = changes.filter(it => it !== next);
        draw();
        say('The last change was not answered and may not be kept: look at the cell, and try again.');
        send();
    }, PATIENCE);
}

function current() {
    const all = new Map(given.cells.map(([number, column, state, tag, unsure, reviewed]) =>
        [number, {number, column, state, tag, unsure, reviewed}]));
    for (const {action, numbers, value} of changes) {
        for (const cell of numbers.map(number => all.get(number)).filter(Boolean)) {
            if (FIXED.includes(cell.state)) continue;
            if (action === 'label') review(cell, columns.findIndex(it => it.value === (value ?? '')));
            if (action === 'accept' && !cell.reviewed && cell.state !== 'cut') review(cell, cell.column);
        }
    }
    return all;
}

function review(cell, column) {
    const {state, tag} = columns[column];
    Object.assign(cell, {column, state, tag, reviewed: 1});
}

// ---- drawing

function draw() {
    root.hidden = !given;
    if (!given) return;
    set(root, 'aria-busy', given.reading);
    cells = current();
    const focused = cellOf(document.activeElement), list = focused?.parentElement;
    const place = list ? [...list.children].indexOf(focused) : -1;
    for (const cell of cells.values()) refresh(cell);
    const of = columns.map(() => []);
    for (const cell of cells.values()) if (show === 'all' || cell.state === show) of[cell.column].push(cell);
    columns.forEach(({section, list}, index) => {
        arrange(list, of[index].sort(compare).map(cell => elements.get(cell.number)));
        const members = [...cells.values()].filter(cell => cell.column === index);
        section.querySelector('h3 b').textContent = of[index].length;
        if ('onlyFilled' in section.dataset) section.hidden = !members.length;
        const accept = section.querySelector('[data-do=accept-column]');
        if (accept) fill(accept, members.filter(cell => cell.state === 'waiting').length);
    });
    // Whoever uses the keyboard goes on with the cell that took the place.
    if (focused && document.activeElement !== focused && byKeyboard) {
        focus(list.children[Math.min(place, list.children.length - 1)] ?? focused);
    }
    drawButtons();
}

function fill(button, count) {
    button.hidden = !count;
    button.querySelector('b').textContent = count;
}

function drawButtons() {
    const counts = {waiting: 0, counted: 0, all: cells.size};
    for (const {state} of cells.values()) if (state in counts) counts[state]++;
    for (const chip of root.querySelectorAll('[data-show]')) {
        chip.querySelector('b').textContent = counts[chip.dataset.show];
        chip.setAttribute('aria-pressed', chip.dataset.show === show);
    }
    for (const chip of root.querySelectorAll('[data-sort]')) chip.setAttribute('aria-pressed', chip.dataset.sort === sort);
    root.querySelector('[data-do=several]').setAttribute('aria-pressed', several);
    const undo = root.querySelector('[data-do=undo]');
    undo.hidden = !given.undo;
    undo.textContent = `Undo ${given.undo}`;
    const bar = root.querySelector('.wbc-selection');
    bar.hidden = !selected.size;
    bar.querySelector('b').textContent = plural(selected.size);
    for (const [number, it] of elements) {
        set(it, 'aria-selected', selected.has(number));
        set(it, 'aria-current', number === given.chosen);
    }
    const few = counts.counted < 100 ? `, but of ${plural(counts.counted)} only: a differential needs 100` : '';
    const done = counts.all ? `No cell waits for review: the report is ready${few}.` : 'No cell was found yet.';
    say(selected.size ? `${plural(selected.size)} selected.` : counts.waiting ? '' : done);
}

function say(text) {
    const line = root.querySelector('[role=status]');
    if (line.textContent !== text) line.textContent = text;
}

function set(it, name, value) {
    if (it.getAttribute(name) !== String(value)) it.setAttribute(name, value);
}

function plural(count) { return `${count} ${count === 1 ? 'cell' : 'cells'}`; }

function compare(one, other) {
    const waiting = (other.state === 'waiting') - (one.state === 'waiting');
    return (sort === 'unsure' && (waiting || other.unsure - one.unsure)) || one.number - other.number;
}

// Bring the element of a cell up to date. What changed its place leaves the list, so that no other has to move.
function refresh(cell) {
    let it = elements.get(cell.number);
    if (!it) {
        it = document.createElement('div');
        it.innerHTML = '<img alt="" draggable="false"><span><i class="wbc-dot"></i><span></span></span>';
        it.setAttribute('role', 'option');
        it.tabIndex = -1;
        it.dataset.number = cell.number;
        elements.set(cell.number, it);
        watcher.observe(it);
    }
    const looks = `${cell.column} ${cell.state} ${cell.tag} ${cell.reviewed}`;
    if (it.dataset.looks === looks) return;
    it.remove();
    it.dataset.looks = looks;
    it.draggable = !FIXED.includes(cell.state);
    it.className = `wbc-cell wbc-${cell.state}${cell.reviewed ? ' wbc-reviewed' : ''}`;
    const text = `${cell.number} ${cell.tag}`;
    it.querySelector('span span').textContent = text;
    it.setAttribute('aria-label', `${text}: ${stateTexts[cell.state]}${cell.reviewed ? ', reviewed' : ''}`);
    if (cell.reviewed) want(cell.number);  // all of these are printed
}

function arrange(list, wanted) {
    const kept = new Set(wanted);
    for (const child of [...list.children]) if (!kept.has(child)) child.remove();
    let next = list.firstChild;
    for (const it of wanted) {
        if (it === next) next = next.nextSibling;
        else list.insertBefore(it, next);
    }
    list.hidden = !wanted.length;
    const stops = wanted.filter(it => it.tabIndex === 0);
    for (const it of stops.slice(1)) it.tabIndex = -1;
    if (wanted.length && !stops.length) wanted[0].tabIndex = 0;
}

// Scrolls the list of a cell, and not the page.
function reveal(it) {
    const list = it?.parentElement;
    if (!list) return;
    const [cell, box] = [it.getBoundingClientRect(), list.getBoundingClientRect()];
    list.scrollBy(cell.left < box.left || cell.right > box.right ? cell.left - box.left - 20 : 0,
        cell.top < box.top || cell.bottom > box.bottom ? cell.top - box.top - 20 : 0);
}

// ---- images

const watcher = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) if (isIntersecting) want(Number(target.dataset.number));
}, {rootMargin: '300px', scrollMargin: '300px'});

function want(number) {
    const url = wbc.thumbnails.key === given.key && wbc.thumbnails.urls[number];
    if (url) put(number, url);
    else { missing.add(number); setTimeout(ask, 20); }
}

function put(number, url) {
    const picture = elements.get(number)?.querySelector('img');
    if (!picture || picture.src) return;
    picture.src = url;
    watcher.unobserve(elements.get(number));
}

function ask() {
    if (!missing.size || Date.now() - asking < PATIENCE) return;
    asking = Date.now();
    trigger('input', {numbers: [...missing].slice(0, 100)});
}

wbc.thumbnails ??= {key: '', urls: {}};
wbc.takeThumbnails = answer => {
    asking = 0;
    if (!answer || answer.key !== given?.key) return;
    if (wbc.thumbnails.key !== answer.key) wbc.thumbnails = {key: answer.key, urls: {}};
    Object.assign(wbc.thumbnails.urls, answer.urls);
    for (const [number, url] of Object.entries(answer.urls)) {
        missing.delete(Number(number));
        put(Number(number), url);
    }
    ask();
};

// ---- choosing and selecting

function cellOf(target) { return root.contains(target) ? target.closest('.wbc-cell') : null; }

function inOrder() { return columns.flatMap(({list}) => [...list.children]); }

function select(chosen, {add = false} = {}) {
    if (!add) selected.clear();
    for (const it of chosen) if (it.draggable) selected.add(Number(it.dataset.number));
    drawButtons();
}

function toggle(it) {
    const number = Number(it.dataset.number);
    anchor = number;
    if (!selected.delete(number)) select([it], {add: true});
    drawButtons();
}

function selectTo(it, from) {
    const order = inOrder();
    const ends = [order.indexOf(elements.get(anchor) ?? from), order.indexOf(it)].sort((a, b) => a - b);
    if (!anchor) anchor = Number(from.dataset.number);
    select(order.slice(Math.max(0, ends[0]), ends[1] + 1));
}

function accept(numbers) {
    const open = numbers.filter(number => !cells.get(number).reviewed && !FIXED.includes(cells.get(number).state));
    if (open.length) change('accept', open);
}

function move(numbers, value) {
    const label = value || null;
    const column = columns.findIndex(it => it.value === value);
    const others = numbers.filter(number => !cells.get(number).reviewed || cells.get(number).column !== column);
    if (others.length) change('label', others, label);
}

const buttons = {
    'accept-column': button => {
        const column = Number(button.closest('[data-column]').dataset.column);
        accept([...cells.values()].filter(it => it.column === column && it.state === 'waiting').sort(compare)
            .map(it => it.number));
    },
    accept: () => accept([...selected]),
    move: button => move([...selected], button.dataset.value),
    clear: () => select([]),
    undo: () => change('undo', [0]),
    several: () => { several = !several; drawButtons(); },
    large: button => set(button, 'aria-pressed', root.classList.toggle('wbc-large')),
};

root.addEventListener('click', event => {
    const it = cellOf(event.target), button = event.target.closest('button');
    if (it && event.shiftKey) selectTo(it, it);
    else if (it && (several || event.ctrlKey || event.metaKey)) toggle(it);
    else if (it) {
        anchor = Number(it.dataset.number);
        selected.clear();
        change('cell', [anchor]);
    } else if (button?.dataset.show) { show = button.dataset.show; draw(); }
    else if (button?.dataset.sort) { sort = button.dataset.sort; draw(); }
    else if (button) buttons[button.dataset.do]?.(button);
});

// ---- keys

function focus(it) {
    if (!it) return;
    for (const other of it.parentElement.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    it.tabIndex = 0;
    it.focus({preventScroll: true});
    it.scrollIntoView({block: 'nearest', inline: 'nearest'});
}

function neighbour(it, key) {
    const items = [...it.parentElement.children], index = items.indexOf(it);
    const row = items.findIndex(other => other.offsetTop !== items[0].offsetTop);
    if (key === 'Home') return items[0];
    if (key === 'End') return items.at(-1);
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row}[key];
    const inList = row < 0 && ['ArrowUp', 'ArrowDown'].includes(key) ? undefined : items[index + step];
    if (inList || (row > 0 && ['ArrowUp', 'ArrowDown'].includes(key))) return inList;
    const lists = columns.map(({list}) => list).filter(list => list.children.length);
    const list = lists[lists.indexOf(it.parentElement) + (['ArrowLeft', 'ArrowUp'].includes(key) ? -1 : 1)];
    return key === 'ArrowLeft' ? list?.lastChild : list?.firstChild;
}

root.addEventListener('keydown', event => {
    const it = cellOf(event.target);
    if (event.key === 'Tab') anchor = 0;
    if (!it || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'a') select([...it.parentElement.children]);
    else if (event.ctrlKey || event.metaKey) return;
    else if (event.key === 'Enter') change('cell', [Number(it.dataset.number)]);
    else if (event.key === ' ') toggle(it);
    else if (/^(Arrow|Home|End)/.test(event.key)) {
        byKeyboard = true;
        const next = neighbour(it, event.key);
        focus(next);
        if (next && event.shiftKey) selectTo(next, it);
        else if (next) anchor = 0;
    } else return;
    event.preventDefault();
});

root.addEventListener('focusin', event => {
    const it = cellOf(event.target);
    if (it) byKeyboard = it.matches(':focus-visible');
});
root.addEventListener('pointermove', () => { byKeyboard = false; });

// A key acts on the cell under the mouse, and that cell moves to another column: until the mouse moves, what lies under it
// then is not meant. Browsers tell of moves also where the page moved under a mouse that rests.
let mouse = '', spent = false;
document.addEventListener('pointermove', ({clientX, clientY}) => {
    const place = `${clientX} ${clientY}`;
    if (place !== mouse) spent = false;
    mouse = place;
}, true);
root.addEventListener('wheel', () => { spent = false; }, {passive: true});

function hovered() { return spent ? null : root.querySelector('.wbc-cell:hover'); }

// A key reviews the cell under the mouse, or the one that the keyboard is at; if it is selected, or none is there, all
// that are selected. Says whether the key was meant for the gallery.
wbc.galleryKey = event => {
    if (!given || !root.offsetParent || event.repeat) return false;
    const it = byKeyboard ? cellOf(document.activeElement) : hovered();
    const number = it ? Number(it.dataset.number) : 0;
    const numbers = selected.size && (!it || selected.has(number)) ? [...selected] : it ? [number] : [];
    const key = event.key.toLowerCase();
    if (key === 'escape' && selected.size) { select([]); return true; }
    const place = wbc.classKeys.indexOf(key);
    if (!numbers.length || (place < 0 && key !== 'a' && key !== 'u')) return false;
    const open = numbers.filter(other => !FIXED.includes(cells.get(other).state));
    spent ||= !byKeyboard;
    if (key === 'a') accept(open);
    else if (place >= 0) move(open, columns[place].value);
    else if (open.length === 1 && cells.get(open[0]).reviewed) change('withdraw', open);
    else if (given.undo) change('undo', [0]);
    return true;
};

// ---- dragging cells to another class

root.addEventListener('dragstart', event => {
    const it = cellOf(event.target);
    if (!it) return;
    const number = Number(it.dataset.number);
    dragged = selected.has(number) ? [...selected] : [number];
    event.dataTransfer.setData('text/plain', dragged.join(', '));
    event.dataTransfer.effectAllowed = 'move';
});

function target(event) {
    const section = event.target.closest?.('[data-column]');
    return dragged.length && section && 'value' in section.dataset ? section : null;
}

function mark(section) {
    for (const column of columns) column.section.classList.toggle('wbc-target', column.section === section);
}

root.addEventListener('dragover', event => {
    const section = target(event);
    mark(section);
    if (section) event.preventDefault();
});
root.addEventListener('drop', event => {
    const section = target(event);
    if (!section) return;
    event.preventDefault();
    // What is dropped where it came from was not meant to be moved.
    const moved = dragged.filter(number => cells.get(number).column !== Number(section.dataset.column));
    if (moved.length) move(moved, section.dataset.value);
});
root.addEventListener('dragend', () => { dragged = []; mark(null); release(); });

// ---- no cell moves away under a hand that has taken hold of one: what the server says meanwhile is drawn afterwards

function release() {
    if (held) setTimeout(() => { held = false; take(); });  // after the click or the drop
}

root.addEventListener('pointerdown', event => { held = Boolean(cellOf(event.target)); });
document.addEventListener('pointerup', release);
document.addEventListener('pointercancel', () => { if (!dragged.length) release(); });  // the start of a drag cancels too

// ---- a rubber band from a free place

root.querySelector('.wbc-groups').addEventListener('pointerdown', event => {
    const list = event.target.closest('.wbc-cells');
    const onScrollbar = list && event.clientX > list.getBoundingClientRect().left + list.clientWidth;
    if (event.button || event.pointerType !== 'mouse' || event.target.closest('.wbc-cell, button') || onScrollbar) return;
    const start = {x: event.clientX, y: event.clientY}, before = event.ctrlKey || event.shiftKey ? [...selected] : [];
    const band = document.createElement('div');
    band.className = 'wbc-band';
    const stretch = ({clientX, clientY}) => {
        const box = {left: Math.min(start.x, clientX), top: Math.min(start.y, clientY)};
        Object.assign(box, {right: Math.max(start.x, clientX), bottom: Math.max(start.y, clientY)});
        band.style.cssText = `left:${box.left}px;top:${box.top}px;width:${box.right - box.left}px;` +
            `height:${box.bottom - box.top}px`;
        root.append(band);
        select([...before.map(number => elements.get(number)), ...inOrder().filter(it => touches(it, box))]);
    };
    const stop = () => {
        band.remove();
        document.removeEventListener('pointermove', stretch);
        for (const name of ['pointerup', 'pointercancel']) document.removeEventListener(name, stop);
    };
    event.preventDefault();  // no text is selected
    select(before.map(number => elements.get(number)));
    document.addEventListener('pointermove', stretch);
    for (const name of ['pointerup', 'pointercancel']) document.addEventListener(name, stop);
});

// Whether a cell, as far as it is in sight, touches a box.
function touches(it, box) {
    const cell = it.getBoundingClientRect(), list = it.parentElement.getBoundingClientRect();
    return cell.left < Math.min(box.right, list.right) && cell.right > Math.max(box.left, list.left) &&
        cell.top < Math.min(box.bottom, list.bottom) && cell.bottom > Math.max(box.top, list.top);
}

watch('value', take);
take();
