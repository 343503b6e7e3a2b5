() => {
    const typing = target => target.closest('input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]');
    const session = () => document.querySelector('.wbc-specimen:not(.hidden):has(.wbc-pager)');
    // What moves by arrow keys itself.
    const ownArrows = target => target.closest('input, [role=radiogroup], [role=tablist], [role=listbox], [role=dialog]');
    let focused = null, busySince = 0, inputs = 0, chosen = null;

    window.wbc = {
        // Inputs to "One cell" are numbered: answers to older ones are dropped.
        countInput() { return ++inputs; },
        // A file is as new as the moment in which it was chosen, however long its upload took.
        numberOf(file) {
            const number = (file && chosen) ?? wbc.countInput();
            chosen = null;
            return number;
        },
        showNewest(answer) {
            if (answer?.number !== inputs) return undefined;
            const {preview} = answer;
            return [preview && {path: preview, url: preview, meta: {_type: 'gradio.FileData'}}, answer.html];
        },
        // Rendering again takes the focus away from what was clicked; whoever uses the keyboard wants to go on from there.
        remember(button) { focused = button === document.activeElement ? button.dataset.focus : null; },
        refocus() {
            busySince = 0;
            if (!focused || document.activeElement !== document.body) return;
            document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({preventScroll: true});
        },
        openTab(name) {
            [...document.querySelectorAll('[role=tab]')].find(tab => tab.textContent.trim() === name)?.click();
        },
        save(file) {
            const bytes = Uint8Array.from(atob(file.content), letter => letter.charCodeAt(0));
            const link = document.createElement('a');
            link.href = URL.createObjectURL(new Blob([bytes], {type: file.type}));
            link.download = file.name;
            link.click();
            setTimeout(() => URL.revokeObjectURL(link.href), 60000);
            return null;
        },
    };

    document.addEventListener('keydown', event => {
        if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
        // The boxes over a field are no real buttons.
        const box = event.target.closest('g[data-action]');
        if (box && (event.key === 'Enter' || event.key === ' ')) {
            event.preventDefault();
            box.dispatchEvent(new MouseEvent('click', {bubbles: true}));
            return;
        }
        const specimen = session(), byKey = document.querySelector('.wbc-keys')?.checked;
        if (byKey && wbc.galleryKey?.(event)) return;
        if (!specimen || !specimen.offsetParent || event.repeat || !byKey) return;
        if (event.key.length > 1 && ownArrows(event.target)) return;
        const button = specimen.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]:not(:disabled)`);
        // A key that comes before the last one's answer would be meant for a cell that is not shown yet.
        if (!button || (button.dataset.action && Date.now() - busySince < 3000)) return;
        if (button.dataset.action) busySince = Date.now();
        event.preventDefault();
        button.click();
    });

    // From the moment a picture is chosen, before it is uploaded, no older answer takes its place.
    for (const name of ['change', 'drop']) {
        document.addEventListener(name, event => { if (event.target.closest('.wbc-picture')) chosen = wbc.countInput(); }, true);
    }

    const uploadField = () =>
        [...document.querySelectorAll('.wbc-upload')].find(it => it.closest('.tabitem')?.offsetParent);
    const give = (field, files) => {
        const input = field.querySelector('input[type=file]');
        // There is none while another picture is uploaded.
        if (!input) { setTimeout(give, 50, field, files); return; }
        input.files = fileList(input.multiple ? sendable(files) : files.slice(0, 1));
        input.dispatchEvent(new Event('change', {bubbles: true}));
    };
    const fileList = files => {
        const transfer = new DataTransfer();
        for (const file of files) transfer.items.add(file);
        return transfer.files;
    };

    // Of one file that is too large Gradio would refuse all: a line that says so takes its place, as of files beyond
    // those that a specimen holds. uploads.py reads that line.
    const mostFiles = 1000;
    const leftOut = (name, reason) => new File([`wbc-hf left out: ${reason}`], name);
    const sendable = files => {
        const limit = window.gradio_config?.max_file_size ?? Infinity;
        const sent = files.slice(0, mostFiles).map(file => file.size <= limit ? file : leftOut(file.name,
            `is too large (${(file.size / 2**30).toFixed(1)} GiB); files of at most ${Math.round(limit / 2**20)} MiB are sent`));
        const beyond = files.slice(mostFiles).map(file => file.name);
        if (beyond.length) sent.push(leftOut(`${beyond[0]} and ${beyond.length - 1} more`,
            `are beyond the ${mostFiles} files that can be given at once; give them after these`));
        return sent;
    };
    document.addEventListener('change', event => {
        const files = [...(event.target.files ?? [])];
        if (event.target.closest('.wbc-many') && event.target.multiple) event.target.files = fileList(sendable(files));
    }, true);

    // Gradio's own fields take pictures from the clipboard by a button only.
    document.addEventListener('paste', event => {
        const files = [...(event.clipboardData?.files ?? [])], field = uploadField();
        if (!files.length || !field || typing(event.target)) return;
        event.preventDefault();
        give(field, files);
    });

    // Gradio names its upload fields otherwise than they are labelled: whoever speaks to the page says what is written.
    new MutationObserver(() => {
        for (const button of document.querySelectorAll('.wbc-upload button[aria-label]')) {
            if (button.textContent.trim()) button.removeAttribute('aria-label');
        }
    }).observe(document.body, {childList: true, subtree: true});
    // Files and folders may be dropped anywhere on the page: beside its fields the browser would open them instead, and
    // Gradio takes no folders.
    const entries = async entry => {
        if (entry.isFile) return [await new Promise((found, failed) => entry.file(found, failed))];
        const reader = entry.createReader(), found = [];
        // The browser gives some hundred at a time.
        for (let some; (some = await new Promise((read, failed) => reader.readEntries(read, failed))).length;) found.push(...some);
        found.sort((one, other) => one.name.localeCompare(other.name, undefined, {numeric: true}));
        const files = [];
        for (const inner of found) if (!inner.name.startsWith('.')) files.push(...await entries(inner));
        return files;
    };
    const hasFiles = event => [...(event.dataTransfer?.types ?? [])].includes('Files');
    document.addEventListener('dragover', event => { if (hasFiles(event)) event.preventDefault(); });
    document.addEventListener('drop', event => {
        if (!hasFiles(event)) return;
        event.preventDefault();
        const own = event.target.closest('.wbc-upload'), field = uploadField();
        if (!field || (own && !own.matches('.wbc-many')) || !event.dataTransfer.files.length) return;
        event.stopImmediatePropagation();
        // Gradio's field forgets that something is dragged over it.
        if (own) event.target.dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: new DataTransfer()}));
        // Both have to be asked for before anything is awaited.
        const files = [...event.dataTransfer.files];
        const dropped = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean);
        if (!dropped.some(entry => entry.isDirectory)) { give(field, files); return; }
        Promise.all(dropped.map(entries)).then(found => give(field, found.flat()), () => give(field, files));
    }, true);

    // A specimen is kept nowhere but in this session.
    window.addEventListener('beforeunload', event => { if (session()) event.preventDefault(); });
}
