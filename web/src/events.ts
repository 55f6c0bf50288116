/** Server events, and safe access to their fields: a field that is missing or of another type reads as empty. */

export type Fields = Record<string, unknown>;
export type ServerEvent = Fields & { type: string };

export function object(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {};
}
export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
export function number(value: unknown): number {
  return typeof value === "number" ? value : 0;
}
export function list(value: unknown): Fields[] {
  return Array.isArray(value) ? value.map(object) : [];
}
export function parse(message: unknown): ServerEvent | null {
  try {
    const event = object(JSON.parse(String(message)));
    return typeof event.type === "string" ? (event as ServerEvent) : null;
  } catch {
    return null;
  }
}
