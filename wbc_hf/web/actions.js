// One handler for all buttons: each names its action and the number of the cell or picture that it is about.
element.addEventListener('click', event => {
    const button = event.target.closest('[data-action]');
    if (!button || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
    const {action, number, value} = button.dataset;
    wbc.remember(button);
    trigger('click', {action, number: Number(number), value: value ?? null});
});
watch('value', () => wbc.refocus());
