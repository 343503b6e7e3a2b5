// The viewer of a field: it fetches the picture under the boxes, zooms and moves both, and leads to a missed cell.
// Boxes are rendered anew with every review. The picture is not: what is shown of it is kept here.
const viewer = element.closest('.wbc-viewer'), find = name => element.querySelector(name);
const stage = find('.wbc-stage'), cross = find('.wbc-cross'), bar = find('.wbc-scale-bar'), note = find('.wbc-viewer-note');
const NEAREST = 4, LEAST = 8;  // screen pixels for one of the picture, and times the whole field, at most
const KEPT = 8;  // previews in memory: whoever goes back and forth does not wait
const LENGTHS = [200, 100, 50, 20, 10, 5, 2, 1, 0.5];  // of the scale bar, in µm

let boxes = null, shown = '', chosen = '', width = 1, height = 1;
let zoom = 1, centre = [0, 0];  // in pixels of the picture
let target = null;  // of the cross, in pixels of the picture
let sharpening = 0, failed = false;
const images = new Map();

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const set = (name, value) => viewer.style.setProperty(name, value);
const fit = () => Math.min(stage.clientWidth / width, stage.clientHeight / height);
const most = () => Math.max(LEAST, NEAREST / fit());
const corner = () => [stage.clientWidth / 2 - centre[0] * fit() * zoom, stage.clientHeight / 2 - centre[1] * fit() * zoom];
const onScreen = ([x, y]) => corner().map((edge, axis) => edge + [x, y][axis] * fit() * zoom);
const inPicture = ([x, y]) => corner().map((edge, axis) => ([x, y][axis] - edge) / (fit() * zoom));
const onStage = event => {
    const {left, top} = stage.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
};

// ---- where the picture is

function place() {
    if (!boxes || !stage.clientWidth) return;
    zoom = clamp(zoom, 1, most());
    centre = [width, height].map((side, axis) => {
        const half = [stage.clientWidth, stage.clientHeight][axis] / (2 * fit() * zoom);
        return side <= 2 * half ? side / 2 : clamp(centre[axis], half, side - half);
    });
    const [left, top] = corner();
    const margins = [(stage.clientWidth - width * fit()) / 2, (stage.clientHeight - height * fit()) / 2];
    set('--zoom', zoom);
    set('--left', `${left - margins[0] * zoom}px`);
    set('--top', `${top - margins[1] * zoom}px`);
    // The boxes move within their drawing, so that their lines keep their width.
    set('--boxes-left', `${(left - margins[0]) / fit()}px`);
    set('--boxes-top', `${(top - margins[1]) / fit()}px`);
    viewer.classList.toggle('wbc-zoomed-in', zoom > 1);
    find('.wbc-zoom').value = `${zoom.toFixed(1)} ×`;
    find('[data-zoom=out]').disabled = find('[data-zoom=fit]').disabled = zoom === 1;
    find('[data-zoom=in]').disabled = zoom >= most();
    if (target) [cross.style.left, cross.style.top] = onScreen(target).map(value => `${value}px`);
    cross.hidden = !target;
    drawScale();
    clearTimeout(sharpening);
    sharpening = setTimeout(sharpen, 120);
}

function drawScale() {
    const perMicrometre = fit() * zoom / Number(boxes.dataset.pixelSize);  // infinite where no scale is known
    const length = LENGTHS.find(length => length * perMicrometre <= Math.min(160, stage.clientWidth / 3));
    bar.hidden = !length;
    if (!length) return;
    bar.style.width = `${length * perMicrometre}px`;
    bar.textContent = `${length} µm`;
}

function zoomTo(newZoom, at = [stage.clientWidth / 2, stage.clientHeight / 2]) {
    const fixed = inPicture(at);
    zoom = clamp(newZoom, 1, most());
    centre = fixed.map((value, axis) => value + ([stage.clientWidth, stage.clientHeight][axis] / 2 - at[axis]) / (fit() * zoom));
    place();
}

const moveBy = (x, y) => { centre = [centre[0] - x / (fit() * zoom), centre[1] - y / (fit() * zoom)]; place(); };

function boxOfChosen() {
    const rect = boxes?.querySelector('.wbc-chosen .wbc-line');
    if (!rect) return null;
    const [x, y, across, down] = ['x', 'y', 'width', 'height'].map(name => Number(rect.getAttribute(name)));
    const [left, top] = onScreen([x, y]), [right, bottom] = onScreen([x + across, y + down]);
    const inView = left >= 0 && top >= 0 && right <= stage.clientWidth && bottom <= stage.clientHeight;
    return {middle: [x + across / 2, y + down / 2], inView};
}

function showChosen() {
    const box = boxOfChosen();
    if (box && !box.inView) centre = box.middle;
    place();
}

// Buttons and keys zoom at the chosen cell while it is in view.
function zoomBy(factor) {
    const box = boxOfChosen();
    zoomTo(zoom * factor, box?.inView ? onScreen(box.middle) : undefined);
    if (box?.inView) showChosen();
}

// ---- which picture it is, and how much of it

const load = full => {
    const key = `${full} ${shown}`;
    if (!images.has(key)) images.set(key, fetchImage(full));
    const loading = images.get(key);
    images.delete(key);
    images.set(key, loading);  // the one used last comes last
    for (const old of [...images.keys()].slice(0, -KEPT)) images.delete(old);
    return loading;
};

async function fetchImage(full) {
    const key = `${full} ${shown}`;
    try {
        const {secret, number} = boxes.dataset;
        const content = await server.send_picture({secret, number: Number(number), full});
        if (!content) throw new Error('not kept');
        const image = newImage();
        image.src = `data:image/jpeg;base64,${content}`;
        await image.decode();
        return image;
    } catch {
        images.delete(key);
        return null;
    }
}

const newImage = () => Object.assign(new Image(), {alt: '', className: 'wbc-picture-shown'});
const put = image => { find('.wbc-picture-shown').replaceWith(image); };
const blank = () => put(newImage());

async function showPreview() {
    const wanted = shown, waiting = setTimeout(() => { if (wanted === shown) blank(); }, 60);
    const image = await load(false);
    clearTimeout(waiting);
    if (wanted !== shown) return;
    if (image) put(image); else blank();
    note.textContent = image ? '' : 'The picture did not arrive. Choose it once more.';
    if (!image) shown = '';
    place();
}

// Full resolution is sent where the screen can show more than the preview holds.
async function sharpen() {
    const image = find('.wbc-picture-shown'), wanted = shown;
    if (!boxes || !image.naturalWidth || image.naturalWidth >= width) return;
    const enough = fit() * zoom * devicePixelRatio * width <= 1.1 * image.naturalWidth;
    const said = boxes.dataset.inFull === 'true' && !failed ? 'Loading full resolution …'
        : `Not kept in full resolution, for want of memory: this is a copy ${image.naturalWidth} pixels wide.`;
    note.textContent = enough ? '' : said;
    if (enough || failed || boxes.dataset.inFull !== 'true') return;
    const full = await load(true);
    if (wanted !== shown) return;
    failed = !full;
    if (full) { put(full); note.textContent = ''; } else sharpen();
}

// After every rendering of the boxes, before the browser draws them.
function update() {
    boxes = viewer.querySelector('.wbc-boxes');
    if (!boxes) {
        images.clear();
        shown = chosen = '';
        blank();
        return;
    }
    const name = `${boxes.dataset.secret} ${boxes.dataset.number}`;
    const {width: newWidth, height: newHeight} = boxes.viewBox.baseVal;
    if (name !== shown) {
        [shown, zoom, width, height, failed] = [name, 1, newWidth, newHeight, false];
        set('--ratio', width / height);
        note.textContent = '';
        point(false);
        showPreview();
    } else if (boxes.dataset.chosen !== chosen) {
        showChosen();
    }
    chosen = boxes.dataset.chosen;
    place();
}

new MutationObserver(changes => { if (changes.some(it => it.target.closest?.('.wbc-boxes, :has(> .wbc-field), .wbc-field'))) update(); })
    .observe(viewer, {subtree: true, childList: true, attributes: true, attributeFilter: ['viewBox', 'data-number', 'data-secret', 'data-chosen']});
new ResizeObserver(place).observe(stage);

// ---- a missed cell

function point(on, byKeyboard = false) {
    if (on === document.body.classList.contains('wbc-pointing')) return;
    document.body.classList.toggle('wbc-pointing', on);
    document.querySelector('.wbc-point')?.setAttribute('aria-pressed', on);
    target = on && byKeyboard ? inPicture([stage.clientWidth / 2, stage.clientHeight / 2]) : null;
    if (on) stage.focus({preventScroll: !byKeyboard});
    note.textContent = on ? 'Click on the cell, or move the cross with the arrow keys and set it with Enter. Esc ends.' : '';
    place();
}

function add([x, y]) {
    point(false);
    document.querySelector('.wbc-point')?.focus({preventScroll: true});
    trigger('click', {action: 'add', number: Number(boxes.dataset.number), value: `${Math.round(x)},${Math.round(y)}`});
}

const pointing = () => document.body.classList.contains('wbc-pointing');

function moveCross(x, y, fine) {
    const step = (fine ? 1 : 12) / (fit() * zoom);
    target ??= inPicture([stage.clientWidth / 2, stage.clientHeight / 2]);
    target = [clamp(target[0] + x * step, 0, width - 1), clamp(target[1] + y * step, 0, height - 1)];
    const [left, top] = onScreen(target);
    // The field follows where the cross would leave it.
    moveBy(clamp(left, 20, stage.clientWidth - 20) - left, clamp(top, 20, stage.clientHeight - 20) - top);
}

document.addEventListener('click', event => {
    const button = event.target.closest('.wbc-point');
    if (button && element.isConnected) point(!pointing(), event.detail === 0);
    // Choosing the chosen cell once more renders nothing.
    if (boxes && event.target.closest(`[data-action=cell][data-number="${chosen}"]`)) showChosen();
});

// ---- mouse and fingers

const over = event => event.target.closest('.wbc-frame') && viewer.contains(event.target);
const fingers = new Map();
let moved = false, wheeledAt = 0, wheelZooms = false;

// The page scrolls where the wheel was turned before the pointer came over the field, and where there is nothing left
// to zoom out of.
window.addEventListener('wheel', event => {
    const paused = event.timeStamp - wheeledAt > 250;
    wheeledAt = event.timeStamp;
    if (paused) wheelZooms = Boolean(over(event)) && (zoom > 1 || event.deltaY < 0 || event.ctrlKey);
    if (!wheelZooms || !over(event)) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    zoomTo(zoom * Math.exp(-clamp(event.deltaY * lines, -200, 200) * (event.ctrlKey ? 0.01 : 0.0025)), onStage(event));
}, {passive: false});

viewer.addEventListener('pointerdown', event => {
    if (!over(event) || event.button !== 0) return;
    if (!fingers.size) moved = false;
    fingers.set(event.pointerId, onStage(event));
});

window.addEventListener('pointermove', event => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = onStage(event);
    if (fingers.size === 1 && (zoom === 1 || pointing())) return;
    if (fingers.size === 1 && !moved && Math.hypot(now[0] - before[0], now[1] - before[1]) < 5) return;
    moved = true;
    viewer.classList.add('wbc-held');
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, now);
    if (!other) { moveBy(now[0] - before[0], now[1] - before[1]); return; }
    const apart = place => Math.max(1, Math.hypot(place[0] - other[0], place[1] - other[1]));
    const middle = place => [(place[0] + other[0]) / 2, (place[1] + other[1]) / 2];
    moveBy(middle(now)[0] - middle(before)[0], middle(now)[1] - middle(before)[1]);
    zoomTo(zoom * apart(now) / apart(before), middle(now));
});

for (const name of ['pointerup', 'pointercancel']) {
    window.addEventListener(name, event => {
        fingers.delete(event.pointerId);
        if (!fingers.size) viewer.classList.remove('wbc-held');
    });
}

// Two fingers are never the page's, else it takes their first movement for scrolling.
viewer.addEventListener('touchmove', event => { if (event.touches.length > 1 && over(event)) event.preventDefault(); }, {passive: false});

// Before a box hears of it: the end of a drag is no click, and a click while pointing is the place of the cell.
viewer.addEventListener('click', event => {
    if (!over(event)) return;
    if (moved || pointing()) event.stopPropagation();
    if (!moved && pointing()) add(inPicture(onStage(event)));
    else if (!moved && !event.target.closest('.wbc-box')) stage.focus({preventScroll: true});
    moved = false;
}, true);

viewer.addEventListener('dblclick', event => {
    if (over(event) && !pointing()) zoomTo(zoom > 1 ? 1 : Math.max(3, 1 / (fit() * devicePixelRatio)), onStage(event));
});

// ---- keys and buttons

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

viewer.addEventListener('keydown', event => {
    if (!over(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key], onBox = event.target !== stage;
    if (event.key === '+' || event.key === '=') zoomBy(1.5);
    else if (event.key === '-') zoomBy(1 / 1.5);
    else if (event.key === '0' && !onBox) zoomTo(1);
    else if (arrow && pointing()) moveCross(...arrow, event.shiftKey);
    else if (event.key === 'Enter' && pointing() && target) add(target);
    else if (arrow && zoom > 1 && !onBox) moveBy(-60 * arrow[0], -60 * arrow[1]);
    else return;
    event.preventDefault();
    event.stopPropagation();
});

document.addEventListener('keydown', event => {
    if (event.key !== 'Escape' || !pointing()) return;
    point(false);
    document.querySelector('.wbc-point')?.focus({preventScroll: true});
});

element.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.zoom === 'fit') zoomTo(1);
    else if (button.dataset.zoom) zoomBy(button.dataset.zoom === 'in' ? 1.5 : 1 / 1.5);
    if ('labels' in button.dataset) button.setAttribute('aria-pressed', !viewer.classList.toggle('wbc-bare'));
    if ('resetLight' in button.dataset) for (const slider of element.querySelectorAll('input')) slider.value = 1;
    light();
});

function light() {
    const [brightness, gamma] = ['brightness', 'gamma'].map(name => Number(find(`[name=${name}]`).value));
    for (const channel of element.querySelectorAll('filter [exponent]')) channel.setAttribute('exponent', 1 / gamma);
    set('--light', `brightness(${brightness})${gamma === 1 ? '' : ' url(#wbc-gamma)'}`);
    find('[data-reset-light]').disabled = brightness === 1 && gamma === 1;
}
element.addEventListener('input', light);

update();
