(() => {
  const table = document.getElementById("findings");
  if (!table) return;
  const body = table.tBodies[0];
  const text = document.getElementById("text");
  const severity = document.getElementById("severity");
  const rows = Array.from(body.rows);
  const filter = () => {
    const wanted = text.value.toLowerCase();
    for (const row of rows) {
      const right = !severity.value || row.dataset.severity === severity.value;
      row.hidden = !(right && row.textContent.toLowerCase().includes(wanted));
    }
  };
  text.addEventListener("input", filter);
  severity.addEventListener("change", filter);
  let last = -1;
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.rank ?? cell.textContent.trim();
  };
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    head.addEventListener("click", () => {
      const turn = last === column ? -1 : 1;
      last = turn === 1 ? column : -1;
      rows.sort((a, b) => turn * key(a, column).localeCompare(key(b, column), undefined, { numeric: true }));
      body.append(...rows);
    });
  });
})();
