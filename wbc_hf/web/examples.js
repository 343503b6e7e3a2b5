// A click on a button within `gr.HTML` becomes an event with the button's index.
element.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (button) trigger('click', {index: Number(button.dataset.index)});
});
