"""What the synthetic callers say. A bar marks a pause inside the turn: the agent must wait there.

A content is a text that several voices speak. Each table maps the name of a content to (what the agent asked before or
"", text).
"""

from __future__ import annotations

from typing import Final

Phrases = dict[str, tuple[str, str]]

NUMBERS: Final[Phrases] = {
    "phone-1": ("", "My phone number is | five five five | zero one two | three four five six."),
    "phone-2": ("What is your phone number?", "Two one two | five five five | eight seven | four one."),
    "phone-3": (
        "Can I have your number?",
        "Sure, it's oh seven seven | four double nine | eight one | three two five.",
    ),
    "phone-4": ("", "You can reach me at | four one five | five five five | nine zero | two six."),
    "card-1": (
        "Please tell me your card number.",
        "Four two four two | one six one six | eight eight nine nine | zero three two one.",
    ),
    "order-1": ("", "My order number is | seven three nine | two two eight."),
    "order-2": ("What is the order number?", "It's A R | four four one | seven zero."),
    "account-1": ("", "The account number ends in | nine nine | one seven."),
    "zip-1": ("What is your zip code?", "Nine four | one one | zero."),
    "price-1": ("", "I paid one hundred | and twenty five dollars | for the ticket."),
    "code-1": ("Please read me the code.", "Eight | three | three | one | nine | two."),
    "flight-1": ("", "I am on flight | B A | two eight six | to Chicago."),
}
SPELLINGS: Final[Phrases] = {
    "name-1": ("", "My last name is spelled | K O W | A L S K I."),
    "name-2": ("How do you spell that?", "S C H | W A R | Z."),
    "name-3": ("", "It's Thompson | T H O M | P S O N."),
    "name-4": ("Please spell your first name.", "That's A N N | E L I E S E."),
    "name-5": ("", "My name is Priya | P R I | Y A."),
    "plate-1": ("What is your licence plate?", "K L M | two four | seven X."),
    "name-6": ("", "The street is Laurier | L A U | R I E R."),
    "name-7": ("Could you spell the company?", "N as in November | O | V as in Victor | A R."),
}
ADDRESSES: Final[Phrases] = {
    "mail-1": ("", "My email address is | anna dot miller | at gmail | dot com."),
    "mail-2": ("What is your email address?", "It's john underscore | smith twenty two | at outlook dot com."),
    "mail-3": ("", "Please send it to info | at green valley | dot org."),
    "mail-4": ("Where should I send it?", "To t dot baker | at | north hill school | dot edu."),
    "street-1": ("What is your address?", "Seventeen | Maple Street | apartment four B."),
    "street-2": ("", "I live at two hundred and ten | West Lake Avenue | in Denver."),
    "mail-5": ("", "You can write to support | at blue river dot net."),
}
DATES: Final[Phrases] = {
    "date-1": ("", "I was born on the third | of March | nineteen eighty four."),
    "date-2": ("When would you like to come?", "On Tuesday | the fourteenth of June | at half past seven."),
    "date-3": ("", "My appointment is on Friday | at a quarter to ten."),
    "date-4": ("What is your date of birth?", "November | twenty second | nineteen ninety."),
    "date-5": ("", "We will arrive on the ninth | and leave on the twelfth | of August."),
    "date-6": ("When does it start?", "It starts in September | or maybe | in early October."),
    "time-1": ("", "Please call me back between nine | and eleven | in the morning."),
}
LISTS: Final[Phrases] = {
    "list-1": ("", "I need eggs | milk | bread | and two pounds of apples."),
    "list-2": ("What would you like to order?", "A large pizza | with mushrooms | olives | and extra cheese."),
    "list-3": ("", "There will be my brother | his wife | and their two children."),
    "list-4": ("Which days suit you?", "Monday | Wednesday | and perhaps Friday afternoon."),
    "list-5": ("", "I have been to Rome | Lisbon | Vienna | and last year to Prague."),
    "list-6": ("", "I would like a coffee | a glass of water | and the bill."),
    "list-7": ("Which colors are there?", "They have it in red | blue | dark green | and white."),
}
RESTARTS: Final[Phrases] = {
    "um-1": ("", "I would like to | um | book a table for four."),
    "um-2": ("", "So the thing is | um | my order has not arrived."),
    "um-3": ("How can I help you?", "Well | uh | I wanted to ask about | the opening hours."),
    "um-4": ("", "Can you tell me | uh | what the weather is like | in Boston?"),
    "restart-1": ("", "I want to go to the | no wait | to the airport."),
    "restart-2": ("", "What is the | what is the name | of the largest lake in Canada?"),
    "restart-3": ("", "Could you | could you please | repeat the last part?"),
    "restart-4": ("", "My flight | I mean my train | leaves at six."),
    "um-5": ("", "I am looking for a | um | a present for my mother."),
    "um-6": ("", "Let me think | um | maybe next week would be better."),
    "clause-1": ("", "I called yesterday | because my internet | was not working."),
    "clause-2": ("", "If it is possible | I would like to change | my reservation."),
    "clause-3": ("", "When I open the app | it shows an error | and then it closes."),
    "clause-4": ("", "Do you have a room | for two nights | with a view of the sea?"),
    "clause-5": ("", "I would like to book a table | for four people | on Saturday evening."),
    "clause-6": ("", "My neighbor told me | that you also repair | old bicycles."),
}
QUESTIONS: Final[Phrases] = {
    "question-1": ("", "What is the capital of France?"),
    "question-2": ("", "How far is the moon from the earth?"),
    "question-3": ("", "Can you recommend a good book?"),
    "question-4": ("", "I would like to cancel my order."),
    "question-5": ("", "What time do you close on Sundays?"),
    "question-6": ("", "That's a good story."),
    "question-7": ("", "Who wrote Romeo and Juliet?"),
    "question-8": ("", "Please tell me a joke."),
    "question-9": ("Would you like to book it?", "Yes, please."),
    "question-10": ("Is there anything else?", "No, thank you, that's all."),
    "question-11": ("", "How do I reset my password?"),
    "question-12": ("", "Is it going to rain tomorrow?"),
    "question-13": ("", "Tell me about the history of London."),
    "question-14": ("", "How many days are there in a leap year?"),
}
INTERRUPTIONS: Final[Phrases] = {
    "stop-1": ("", "Stop please. What is the capital of Italy?"),
    "stop-2": ("", "Wait, I meant the other one."),
    "stop-3": ("", "No, that's not what I asked."),
    "stop-4": ("", "Hold on a second, I have a question."),
    "stop-5": ("", "Sorry, can you say that again?"),
    "stop-6": ("", "Okay, but how much does it cost?"),
    "stop-7": ("", "Actually, let's talk about something else."),
    "stop-8": ("", "Excuse me, could you speak a little slower?"),
    "stop-9": ("", "That's enough, thank you."),
    "stop-10": ("", "And what about the weather tomorrow?"),
    "stop-11": ("", "I don't understand that."),
    "stop-12": ("", "Never mind, please cancel it."),
    "stop-13": ("", "Stop."),
    "stop-14": ("", "Yes, I know, but where is it?"),
}
BACKCHANNELS: Final[Phrases] = {
    "back-1": ("", "Mm-hmm."),
    "back-2": ("", "Uh-huh."),
    "back-3": ("", "Yeah."),
    "back-4": ("", "Okay."),
    "back-5": ("", "Right."),
    "back-6": ("", "I see."),
    "back-7": ("", "Ah."),
    "back-8": ("", "Oh, okay."),
    "back-9": ("", "Yes, yes."),
    "back-10": ("", "Hmm."),
    "back-11": ("", "Wow."),
    "back-12": ("", "Sure."),
}
SIDE_SPEECH: Final[Phrases] = {
    "side-1": ("", "Honey, did you feed the dog this morning?"),
    "side-2": ("", "Put it on the table, I will be there in a minute."),
    "side-3": ("", "Can you close the door behind you?"),
    "side-4": ("", "Dinner is ready, come downstairs."),
    "side-5": ("", "Have you seen my keys anywhere?"),
    "side-6": ("", "The bus leaves at eight, so hurry up."),
    "side-7": ("", "She said they would be late again."),
    "side-8": ("", "Leave the package next to the stairs."),
}
PAUSING: Final[dict[str, Phrases]] = {
    "number": NUMBERS,
    "spelling": SPELLINGS,
    "address": ADDRESSES,
    "date": DATES,
    "list": LISTS,
    "restart": RESTARTS,
}
"""The tables whose texts have pauses inside, by kind."""
