// Sort the rows of a table by the column whose heading is pressed; undefined values stay at the end.
document.querySelectorAll("table.sortable").forEach(function (table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach(function (head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.append(button);
    button.addEventListener("click", function () {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("n");
      const rows = Array.from(table.tBodies[0].rows, function (row) {
        const cell = row.cells[column];
        const text = numeric ? cell.dataset.sort || "" : cell.textContent.trim();
        return { row: row, text: text, number: Number(text) };
      });
      rows.sort(function (a, b) {
        if ((a.text === "") !== (b.text === "")) { return a.text === "" ? 1 : -1; }
        const order = numeric ? a.number - b.number : a.text.localeCompare(b.text, undefined, { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append.apply(table.tBodies[0], rows.map(function (item) { return item.row; }));
    });
  });
});
