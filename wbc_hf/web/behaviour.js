() => {
    const typing = target => target.closest('input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]');
    const session = () => document.querySelector('.wbc-specimen:not(.hidden):has(.wbc-pager)');
    // What moves by arrow keys itself.
    const ownArrows = target => target.closest('input, [role=radiogroup], [role=tablist], [role=listbox], [role=dialog]');
    let focused = null, busySince = 0, inputs = 0;

    window.wbc = {
        // Inputs to "One cell" are numbered: answers to older ones are dropped.
        countInput() { return ++inputs; },
        showNewest(preview, answer) { return answer?.number === inputs ? [preview, answer.html] : undefined; },
        // Rendering again takes the focus away from what was clicked; whoever uses the keyboard wants to go on from there.
        remember(button) { focused = button === document.activeElement ? button.dataset.focus : null; },
        refocus() {
            busySince = 0;
            if (!focused || document.activeElement !== document.body) return;
            document.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({preventScroll: true});
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
        document.addEventListener(name, event => { if (event.target.closest('.wbc-picture')) wbc.countInput(); }, true);
    }

    // Gradio's own fields take pictures from the clipboard by a button only.
    document.addEventListener('paste', event => {
        const files = [...(event.clipboardData?.files ?? [])];
        const field = [...document.querySelectorAll('.wbc-upload')].find(it => it.closest('.tabitem')?.offsetParent);
        if (!files.length || !field || typing(event.target)) return;
        event.preventDefault();
        const give = () => {
            const input = field.querySelector('input[type=file]');
            // There is none while another picture is uploaded.
            if (!input) { setTimeout(give, 50); return; }
            const transfer = new DataTransfer();
            for (const file of input.multiple ? files : files.slice(0, 1)) transfer.items.add(file);
            input.files = transfer.files;
            input.dispatchEvent(new Event('change', {bubbles: true}));
        };
        give();
    });

    // Gradio names its upload fields otherwise than they are labelled: whoever speaks to the page says what is written.
    new MutationObserver(() => {
        for (const button of document.querySelectorAll('.wbc-upload button[aria-label]')) {
            if (button.textContent.trim()) button.removeAttribute('aria-label');
        }
    }).observe(document.body, {childList: true, subtree: true});

    // A specimen is kept nowhere but in this session.
    window.addEventListener('beforeunload', event => { if (session()) event.preventDefault(); });
}
