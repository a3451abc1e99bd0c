/* Puts the parts of the page to work. */

(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  document.querySelectorAll('table[data-sort]').forEach(makeSortable);
  const plots = new Plots(data);
  const runs = document.getElementById('runs-shown');
  if (runs) runChooser(plots, runs);
  if (data.gallery) new Gallery(data.gallery);
})();
