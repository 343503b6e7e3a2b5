// The keys of the classes as this browser's user wants them. They are written on the buttons after every rendering.
const STORE = 'wbc-keys', CLASSES = 5;
const fields = [...element.querySelectorAll('.wbc-key-fields input')], problem = element.querySelector('.wbc-key-problem');
const TAKEN = JSON.parse(element.querySelector('.wbc-key-fields').dataset.taken);
const DEFAULTS = fields.map(field => field.dataset.default);
const specimen = element.closest('.wbc-specimen');

const clash = (keys, index) => {
    const key = keys[index];
    if (!key.trim()) return 'A key is one letter, digit or sign.';
    if (key in TAKEN) return `${key.toUpperCase()} ${TAKEN[key]} already: choose another key.`;
    const other = keys.findIndex((it, place) => it === key && place !== index);
    return other < 0 ? '' : `${key.toUpperCase()} is the key of “${fields[other].parentElement.textContent.trim()}” already: change that one first.`;
};

// Kept by name: a laboratory's own types come and go with the settings of the page. Before there were any, the keys of
// the five and of none of these were a list.
function byName() {
    const kept = JSON.parse(localStorage.getItem(STORE)) ?? {};
    if (!Array.isArray(kept)) return kept;
    const names = fields.map(field => field.dataset.name);
    return Object.fromEntries([...names.slice(0, CLASSES), ''].map((name, place) => [name, kept[place]]));
}

function stored() {
    try {
        const kept = byName();
        const keys = fields.map((field, index) => kept[field.dataset.name] ?? DEFAULTS[index]);
        const valid = keys.every((key, index) => typeof key === 'string' && [...key].length === 1 && !clash(keys, index));
        return valid ? keys : [...DEFAULTS];
    } catch { return [...DEFAULTS]; }  // no storage, or not ours
}

let keys = stored();

function write() {
    wbc.classKeys = keys;
    for (const [index, field] of fields.entries()) if (field !== document.activeElement || !problem.textContent) field.value = keys[index];
    for (const [index, button] of [...specimen.querySelectorAll('.wbc-classes button')].entries()) {
        if (button.dataset.key === keys[index]) continue;
        button.dataset.key = keys[index];
        button.setAttribute('aria-keyshortcuts', keys[index]);
        button.querySelector('kbd').textContent = keys[index].toUpperCase();
    }
}

function keep(chosen) {
    keys = chosen;
    const kept = Object.fromEntries(fields.map((field, index) => [field.dataset.name, keys[index]]));
    try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { /* they hold until the page is closed */ }
    write();
}

for (const [index, field] of fields.entries()) {
    field.addEventListener('focus', () => field.select());
    field.addEventListener('input', () => {
        const chosen = keys.with(index, field.value.toLowerCase());
        problem.textContent = clash(chosen, index);
        if (!problem.textContent) keep(chosen);
    });
    field.addEventListener('change', () => { field.value = keys[index]; });
}
element.querySelector('button').addEventListener('click', () => { problem.textContent = ''; keep([...DEFAULTS]); });

new MutationObserver(write).observe(specimen, {subtree: true, childList: true, attributes: true, attributeFilter: ['data-key']});
write();
