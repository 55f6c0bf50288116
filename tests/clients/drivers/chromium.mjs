// A page in headless Chromium, driven over the DevTools protocol, for drivers of clients that run in a browser.
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";

const OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio",
  "--remote-debugging-port=0", "--allow-loopback-in-peer-connection", "--autoplay-policy=no-user-gesture-required"];

// Open a URL, and return a function that evaluates JavaScript in the page. `tell` is called with the arguments that the
// page gives to its own `tell`. `folder` is for the browser's data.
export async function openPage(url, folder, tell) {
  const profile = `${folder}/profile`;
  // The test kills the process group of the driver, and the browser with it.
  spawn("chromium", [...OPTIONS, `--user-data-dir=${profile}`, "about:blank"], { stdio: "ignore" });
  const portFile = `${profile}/DevToolsActivePort`;
  while (!existsSync(portFile) || !readFileSync(portFile, "utf8").includes("\n")) await sleep(50);
  const [port] = readFileSync(portFile, "utf8").split("\n");
  let page;
  while (!(page = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()).find(({ type }) => type === "page")))
    await sleep(50);
  const tools = new WebSocket(page.webSocketDebuggerUrl);
  await new Promise((opened) => tools.on("open", opened));
  const answers = new Map();
  tools.on("message", (message) => {
    const { id, method, params, result } = JSON.parse(message);
    if (method === "Runtime.bindingCalled") tell(...JSON.parse(params.payload));
    answers.get(id)?.(result);
    answers.delete(id);
  });
  let calls = 0;
  const call = (method, params = {}) => {
    const id = ++calls;
    tools.send(JSON.stringify({ id, method, params }));
    return new Promise((answered) => answers.set(id, answered));
  };
  await call("Runtime.enable");
  await call("Runtime.addBinding", { name: "told" });
  const run = async (expression) => {
    const found = await call("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (found.exceptionDetails) throw new Error(JSON.stringify(found.exceptionDetails));
    return found.result.value;
  };
  // The empty page is complete, too, until the browser has the first bytes of the other.
  await call("Page.navigate", { url });
  while (!(await run(`location.href === "${url}" && document.readyState === "complete"`))) await sleep(20);
  await run("window.tell = (kind, fields) => told(JSON.stringify([kind, fields])); 0");
  return run;
}
