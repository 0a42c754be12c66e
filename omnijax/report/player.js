// Without scripts each player keeps the browser's own controls; with them it becomes a button.
for (const player of document.querySelectorAll('.player')) {
  const [audio, button] = [player.querySelector('audio'), player.querySelector('button')];
  audio.hidden = true; audio.removeAttribute('controls'); button.hidden = false;
  const draw = () => {
    button.style.setProperty('--played', audio.paused ? 0 : audio.currentTime / audio.duration);
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener('play', draw);
  button.addEventListener('click', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== audio) other.pause();
    audio.currentTime = 0; audio.play();
  });
}
