/** Draws the waterfall of the latest turn and the percentiles of the session. */
import { type TurnMeter, type TurnTimes, percentile } from "./turn_times";

function element(id: string): HTMLElement {
  return document.getElementById(id)!;
}

export function drawTurn(turn: TurnTimes): void {
  const sum = turn.shares.reduce((total, { ms }) => total + ms, 0);
  const rows = [];
  let from = 0;
  for (const { label, ms } of turn.shares) {
    rows.push(row(label, ms, from / sum, ms / sum));
    from += ms;
  }
  const heard = turn.totalMs !== null;
  const total = row(heard ? "Voice to voice" : turn.serverMs === null ? "So far" : "On the server", turn.totalMs ?? sum);
  total.className = "total";
  element("waterfall").replaceChildren(...rows, total);
  element("waterfall-note").textContent = turn.notes.join(", ");
}

function row(label: string, ms: number, from?: number, share?: number): HTMLLIElement {
  const line = document.createElement("li");
  const [name, value] = [document.createElement("span"), document.createElement("span")];
  name.textContent = label;
  value.textContent = `${Math.round(ms)} ms`;
  value.className = "ms";
  line.append(name, value);
  if (from === undefined || share === undefined) return line;
  const [track, bar] = [document.createElement("span"), document.createElement("span")];
  track.className = "track";
  bar.className = "bar";
  track.ariaHidden = "true";
  bar.style.width = `${(share * 100).toFixed(2)}%`;
  bar.style.marginLeft = `${(from * 100).toFixed(2)}%`;
  track.append(bar);
  line.append(track);
  return line;
}

export function drawPercentiles({ totals, serverTotals }: TurnMeter): void {
  element("turns").textContent = String(totals.length);
  if (!totals.length) return;
  for (const percent of [50, 90, 99]) element(`p${percent}`).textContent = `${Math.round(percentile(totals, percent))} ms`;
  element("server-median").textContent =
    `The median on the server, to the first audio that it sends, is ${Math.round(percentile(serverTotals, 50))} ms.`;
}
