// Light or dark as in Airflow, which keeps the choice here; without it, as the browser says.
(() => {
  let theme = null;
  try { theme = window.localStorage.getItem("theme"); } catch { /* storage is shut: as the browser says */ }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

  // In Airflow's frame a link to Airflow itself would open Airflow inside Airflow, a report would
  // hide the navigation, and a PDF be refused by the browser: they go out, or to a tab of their own.
  if (window.parent !== window) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-top], a[data-tab]");
      if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const outside = window.parent.document.createElement("a");
      outside.href = link.href;
      if ("tab" in link.dataset) { outside.target = "_blank"; outside.rel = "noopener"; }
      window.parent.document.body.append(outside);
      outside.click();
      outside.remove();
    });
  }
})();
