// The keys of the classes as this browser's user wants them. They are written on the buttons after every rendering.
const DEFAULTS = ['1', '2', '3', '4', '5', '0'], STORE = 'wbc-keys';
const TAKEN = {a: 'accepts', u: 'takes back', l: 'shows labels', m: 'points at a missed cell', '+': 'zooms in', '=': 'zooms in', '-': 'zooms out'};
const fields = [...element.querySelectorAll('.wbc-key-fields input')], problem = element.querySelector('.wbc-key-problem');
const specimen = element.closest('.wbc-specimen');

const clash = (keys, index) => {
    const key = keys[index];
    if (!key.trim()) return 'A key is one letter, digit or sign.';
    if (key in TAKEN) return `${key.toUpperCase()} ${TAKEN[key]} already: choose another key.`;
    const other = keys.findIndex((it, place) => it === key && place !== index);
    return other < 0 ? '' : `${key.toUpperCase()} is the key of “${fields[other].parentElement.textContent.trim()}” already: change that one first.`;
};

function stored() {
    try {
        const keys = JSON.parse(localStorage.getItem(STORE));
        const valid = Array.isArray(keys) && keys.length === DEFAULTS.length
            && keys.every((key, index) => typeof key === 'string' && [...key].length === 1 && !clash(keys, index));
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
    try { localStorage.setItem(STORE, JSON.stringify(keys)); } catch { /* they hold until the page is closed */ }
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
