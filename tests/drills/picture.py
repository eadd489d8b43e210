"""The picture of a burst: workers that are there and that are ready, and messages on both queues, over time."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 340, 56, 60, 34, 44


def stairs(points, end):
    """Corners of a line that holds each value up to the next."""
    corners = []
    for place, (when, value) in enumerate(points):
        until = points[place + 1][0] if place + 1 < len(points) else end
        corners += [(when, value), (until, value)]
    return corners


def ticks(end, about=8):
    step = next(step for step in [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800] if end / step <= about)
    return [place * step for place in range(int(end // step) + 1)]


def picture(there, ready, messages, answered, ideal, most):
    """SVG. All are lists of (second, number); `answered` and `ideal` are seconds."""
    end = max(there[-1][0], messages[-1][0]) * 1.02
    top = max(1, max(number for _, number in messages))

    def x(second):
        return LEFT + (WIDTH - LEFT - RIGHT) * second / end

    def y(number, of):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * number / of

    def line(points, of):
        return " ".join("%.1f,%.1f" % (x(second), y(number, of)) for second, number in points)

    def text(at, height, what, anchor="middle", colour="#555"):
        return '<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s">%s</text>' % (at, height, anchor, colour, what)

    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (WIDTH, HEIGHT), '<rect width="100%" height="100%" fill="#fff"/>']
    for second in ticks(end):
        out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#eee"/>' % (x(second), x(second), TOP, HEIGHT - BOTTOM))
        out.append(text(x(second), HEIGHT - BOTTOM + 16, second))
    for number in range(0, most + 1, 2):
        out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#eee"/>' % (LEFT, WIDTH - RIGHT, y(number, most), y(number, most)))
        out.append(text(LEFT - 8, y(number, most) + 4, number, "end", "#1f5fa8"))
    for share in (0, 0.5, 1):
        out.append(text(WIDTH - RIGHT + 8, y(share * most, most) + 4, round(share * top), "start", "#b5651d"))
    area = [(there[0][0], 0)] + stairs(there, end) + [(end, 0)]
    out.append('<polygon points="%s" fill="#cfe0f3"/>' % line(area, most))
    out.append('<polyline points="%s" fill="none" stroke="#1f5fa8" stroke-width="2"/>' % line(stairs(ready, end), most))
    out.append('<polyline points="%s" fill="none" stroke="#b5651d" stroke-width="1.5" stroke-dasharray="4 3"/>' % line(messages, top))
    for second, what, colour in ((answered, "answered", "#2a7d2a"), (ideal, "ideal end", "#888")):
        out.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-dasharray="2 3"/>' % (x(second), x(second), TOP, HEIGHT - BOTTOM, colour))
        out.append(text(x(second), TOP - 6, what, "middle", colour))
    out.append(text(LEFT, 14, "workers: there (area), ready (line)", "start", "#1f5fa8"))
    out.append(text(WIDTH - RIGHT, 14, "messages, those in hand included", "end", "#b5651d"))
    out.append(text(WIDTH / 2, HEIGHT - 8, "seconds since the sweep was submitted"))
    return "\n".join(out + ["</svg>", ""])
